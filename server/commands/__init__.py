"""Commands of ``cardionets-server``, one module each; ``server.cli`` registers them."""
