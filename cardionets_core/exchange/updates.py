"""Trained modules as updates in the study's wire precision, and back (rows 8 and 11 of the walk).

Comes in: a module after the local steps, and as it was sent. Goes out: the coded change, and what the code
lost of it. The coordinator adds the change to the same values, so that all behind it sees float32 modules.
"""

from __future__ import annotations

import numpy as np

from cardionets_core.errors import PeerError
from cardionets_core.exchange.messages import PackedModule
from cardionets_core.exchange.precision import Coded, Form, decode, encode


def to_update(
    trained: PackedModule, sent: np.ndarray, form: Form, *, carried: np.ndarray | None = None
) -> tuple[PackedModule, np.ndarray]:
    """The change of a module in a form, and what that form loses of it.

    Error feedback (Seide et al. 2014, Interspeech; Karimireddy et al. 2019, ICML): what was lost before is
    added to what is coded now, so that over the rounds nothing is lost but the last remainder.

    Args:
        trained: float32, after the local steps.
        sent: its flat values before them, as the coordinator holds them.
        form: how the change travels.
        carried: what was lost before; nothing by default.

    Returns:
        The coded module, and float32 [N] what it lacks of the change and of ``carried``.

    Raises:
        PeerError: the change is not finite, or too large for the form.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = trained.values - sent
        if carried is not None:
            wanted += carried
    coded = encode(wanted, form)
    wanted -= decode(coded, size=wanted.size)
    return (
        PackedModule(layout=trained.layout, values=coded.codes, form=form, scales=coded.scales),
        wanted,
    )


def from_update(update: PackedModule, sent: np.ndarray) -> PackedModule:
    """The float32 module that a coded change leads to.

    Args:
        update: as it came.
        sent: the flat values that it is added to.

    Raises:
        PeerError: the codes are not those of the module, or do not lead to finite values.
    """
    change = decode(Coded(update.form, update.values, update.scales), size=sent.size)
    with np.errstate(over="ignore"):
        values = sent + change
    # A sum turns -0.0 into 0.0: a tensor that stays at its site must come back byte for byte.
    np.copyto(values, sent, where=change == 0)
    if not np.isfinite(values).all():
        raise PeerError("an update leads to values that are not finite", where="exchange")
    return PackedModule(layout=update.layout, values=values)
