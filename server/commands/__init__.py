"""Commands of ``cardionets-server``, one subject a file; each registers itself with the program."""
