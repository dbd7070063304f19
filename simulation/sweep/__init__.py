"""Sweeps: one study over the values of some of its keys, or of its scenario's."""
