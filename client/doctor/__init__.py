"""The parts of ``cardionets-client check``; each looks at one thing and changes nothing."""
