"""Commands of ``cardionets-sim`` that need a file of their own."""
