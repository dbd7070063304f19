"""The guarded SuperLink of a benchmark: it admits every key that is registered, since it has no registry.

``python -m simulation.benchmarks.exchange.open_superlink DIR`` serves as ``server.link.superlink`` does.
"""

from __future__ import annotations

from server.link import superlink


class Everybody:
    """Admits any key; Flower's own check of registered keys stands behind it."""

    def __init__(self, workspace: object) -> None:
        pass

    def __call__(self, key: bytes) -> tuple[str, str]:
        """As ``server.link.admission.AdmittedSites``."""
        return ("site", "") if key else ("", "unknown-key")


if __name__ == "__main__":
    superlink.AdmittedSites = Everybody  # type: ignore[assignment,misc]
    superlink.main()
