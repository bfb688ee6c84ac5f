"""Original checkpoints: fetched, cached and read strictly; and synthetic ones for tests."""
