"""Keeps processes running on either side: start, watch, restart, logs, health, a clean end."""
