"""Fake hospitals on disk in real formats, and the real client and server run on them."""
