"""Envelopes as Flower's records, and back (rows 0 and 10 of the walk)."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from cardionets_core.errors import ReplyRefusedError
from cardionets_core.exchange.messages import Envelope


def to_records(envelope: Envelope) -> RecordDict:
    """Flower's records of an envelope."""
    arrays = ArrayRecord(
        {name: Array(np.ascontiguousarray(value)) for name, value in envelope.arrays.items()}
    )
    return RecordDict({"fields": ConfigRecord(dict(envelope.fields)), "arrays": arrays})


def from_records(records: RecordDict) -> Envelope:
    """The envelope in Flower's records.

    Raises:
        ReplyRefusedError: a record is missing or an array cannot be read.
    """
    try:
        fields = dict(records.config_records["fields"])
        arrays = {name: array.numpy() for name, array in records.array_records["arrays"].items()}
    except Exception as error:  # the content is a stranger's; whatever is wrong with it, it is refused
        raise ReplyRefusedError("the reply's records cannot be read", where="reply") from error
    return Envelope(fields=fields, arrays=arrays)  # type: ignore[arg-type]
