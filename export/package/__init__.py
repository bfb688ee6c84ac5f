"""Archives, their provenance and signatures, and how they are verified."""
