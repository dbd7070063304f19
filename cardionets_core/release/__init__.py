"""A released model on disk: its files, checksums and signature, as whoever receives it checks them."""
