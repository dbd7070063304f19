"""Envelopes as Flower's records, and back (rows 0 and 10 of the walk)."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from cardionets_core.errors import ReplyRefusedError
from cardionets_core.exchange.messages import Envelope
from cardionets_core.exchange.npy import from_npy, to_npy

NUMPY = "numpy.ndarray"
"""Flower's word for the form in which an array's bytes are."""


def to_records(envelope: Envelope) -> RecordDict:
    """Flower's records of an envelope."""
    return with_arrays(envelope, array_record(envelope))


def array_record(envelope: Envelope) -> ArrayRecord:
    """Flower's record of an envelope's arrays."""
    return ArrayRecord(
        {
            name: Array(str(value.dtype), tuple(value.shape), NUMPY, to_npy(value))
            for name, value in envelope.arrays.items()
        }
    )


def with_arrays(envelope: Envelope, arrays: ArrayRecord) -> RecordDict:
    """Flower's records of an envelope's fields, with arrays that are laid out already."""
    return RecordDict({"fields": ConfigRecord(dict(envelope.fields)), "arrays": arrays})


def from_records(records: RecordDict) -> Envelope:
    """The envelope in Flower's records.

    Raises:
        ReplyRefusedError: a record is missing or an array cannot be read.
    """
    try:
        fields = dict(records.config_records["fields"])
        found = records.array_records["arrays"].items()
        if strange := [name for name, array in found if array.stype != NUMPY]:
            raise ValueError(f"{strange} came in another form")
        arrays = {name: from_npy(array.data) for name, array in found}
    except Exception as error:  # the content is a stranger's; whatever is wrong with it, it is refused
        raise ReplyRefusedError("the reply's records cannot be read", where="reply") from error
    return Envelope(fields=fields, arrays=arrays)  # type: ignore[arg-type]
