"""SCAFFOLD at the site: what to add to its gradients, and its next control variate (Karimireddy et al. 2020).

Option II of algorithm 1: ``c_i+ = c_i - c + (x - y_i) / (K eta)``. K eta is the way that a gradient of one
would have gone, so schedules and momentum are taken into account. Comes in: tensors of one module. Goes out:
tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

Tensors = Mapping[str, np.ndarray]

TAKEN = "strategy/taken"
"""Name in an order's ``shared`` of the marks of the last reply of each site that entered the model."""


def mark(site: str, phase: int, number: int) -> float:
    """48 bits of a hash of a site's reply to a round, exact in float64; it does not tell the site."""
    text = f"{site}\x1f{phase}\x1f{number}"
    return float(int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big"))


def taken(marks: Iterable[float] = ()) -> np.ndarray:
    """What an order carries as ``TAKEN``; by default before any reply has entered the model."""
    # Never empty: -1 is no mark.
    return np.array([-1.0, *sorted(marks)])


def shift_of(control: Tensors, own: Tensors) -> dict[str, np.ndarray]:
    """``c - c_i``, which is added to each gradient; an empty ``own`` is zero."""
    return {name: value - own[name] if name in own else value for name, value in control.items()}


def next_control(
    *, start: Tensors, end: Tensors, control: Tensors, own: Tensors, way: float
) -> dict[str, np.ndarray]:
    """The site's next control variate c_i+, float32.

    Args:
        start: the module as it was sent, x.
        end: after the local steps, y_i.
        control: the coordinator's, c.
        own: the site's, c_i; empty before its first round.
        way: K eta, above 0.
    """
    found = {}
    for name, sent in start.items():
        mean = (sent.astype(np.float64) - end[name]) / way - control[name]
        found[name] = (mean + own[name] if name in own else mean).astype(np.float32)
    return found


def change_of(after: Tensors, own: Tensors) -> dict[str, np.ndarray]:
    """``c_i+ - c_i``, which is sent; float32."""
    return {name: value - own[name] if name in own else value for name, value in after.items()}
