"""Commands of ``cardionets-client``, one module each; ``client.cli`` registers them."""
