"""Pack models as archives with provenance and signatures, and verify them."""
