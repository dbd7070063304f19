"""Keys, certificates, signatures and startup kits: the door to ``cryptography`` for all that proves a name."""
