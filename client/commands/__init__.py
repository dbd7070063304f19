"""Commands of ``cardionets-client``, one subject a file; each registers itself with the program."""
