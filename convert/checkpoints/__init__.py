"""Original checkpoints: fetched, kept, read strictly, and made up for tests."""
