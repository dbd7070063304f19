"""cardionets_core."""
