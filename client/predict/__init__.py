"""Predictions of a trained model for ECGs of this building (``predict``); for research, not for diagnosis."""
