"""One digest of all that a message holds, in the form in which it travels (rows 9 and 10 of the walk).

Comes in: an envelope. Goes out: SHA-256 over its fields and its arrays, whatever their order. The head of the
sender's journal stands outside: the journal's line names this digest, and the head is that line's.
"""

from __future__ import annotations

import hashlib

import numpy as np

from cardionets_core.exchange.heads import PREFIX
from cardionets_core.exchange.messages import Envelope


def content_digest(envelope: Envelope) -> str:
    """SHA-256 over names, types, shapes and bytes, 64 hexadecimal digits."""
    state = hashlib.sha256()
    for name, scalar in sorted(envelope.fields.items()):
        if not name.startswith(PREFIX):
            state.update(f"{name}={scalar!r}\n".encode())
    for name, value in sorted(envelope.arrays.items()):
        state.update(f"{name}:{value.dtype}:{value.shape}\n".encode())
        state.update(np.ascontiguousarray(value).data)
    return state.hexdigest()


def text_bytes(envelope: Envelope) -> int:
    """Bytes of all text: the names of fields and arrays, and the fields that are text."""
    names = sum(len(name.encode()) for name in (*envelope.fields, *envelope.arrays))
    return names + sum(len(value.encode()) for value in envelope.fields.values() if isinstance(value, str))
