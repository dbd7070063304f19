"""Commands of ``cardionets-server``, a module a group."""
