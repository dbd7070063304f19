"""Flower's own SuperLink with a database that is waited for longer; for cases in which its 5 s end the run.

``python -m simulation.benchmarks.exchange.patient_superlink …`` takes the arguments of ``flower-superlink``.
"""

from __future__ import annotations

from flwr.superlink.cli import flower_superlink

from server.link.superlink import patient_database

if __name__ == "__main__":
    patient_database()
    flower_superlink()
