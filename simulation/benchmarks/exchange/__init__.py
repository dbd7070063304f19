"""Rounds of real processes on loopback: bare Flower's FedAvg and CardioNets' exchange, side by side."""
