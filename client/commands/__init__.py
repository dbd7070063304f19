"""Commands of ``cardionets-client``, a module a group."""
