"""Keys, certificates, signatures and startup kits: the door to ``cryptography`` for what proves a name."""
