"""Faults and attackers by schedule, between the real clients and the real server."""
