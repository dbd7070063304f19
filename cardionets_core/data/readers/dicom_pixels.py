"""The pixels of chosen DICOM frames (step 2 of the walk).

Comes in: frames in the order that they shall have. Goes out: one float32 array. What is stored plainly is
taken from the bytes; what is compressed is decompressed frame by frame in another process.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cardionets_core.data.readers.dicom_header import (
    HEADER_BYTES,
    WANTED,
    DicomFrame,
    ItemBudget,
    PixelLayout,
    parse_header,
)
from cardionets_core.data.readers.frame_decoder import FrameDecoder
from cardionets_core.errors import RecordRefused

MAXIMUM_VOXELS = 64_000_000
"""Of all cines read from one study: 256 MB as float32."""
_PLAIN = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian})
_KINDS = {(8, False): "u1", (8, True): "i1", (16, False): "<u2", (16, True): "<i2", (32, False): "<u4",
          (32, True): "<i4"}  # fmt: skip
_MARGIN_BYTES = 65_536


def read_pixels(frames: Sequence[DicomFrame]) -> np.ndarray:
    """Decode frames of one size.

    Args:
        frames: in the wanted order, at least one.

    Returns:
        Float32 [frames, Y, X] in scanner units.

    Raises:
        RecordRefused: ``cine-too-large``, ``cine-unsupported`` or ``cine-unreadable``.
    """
    rows, columns = frames[0].shape
    if len(frames) * rows * columns > MAXIMUM_VOXELS:
        raise RecordRefused("cine-too-large", f"{len(frames)} frames of {rows} x {columns} pixels")
    pixels = np.empty((len(frames), rows, columns), dtype=np.float32)
    order = sorted(range(len(frames)), key=lambda place: (id(frames[place].layout), frames[place].index))
    try:
        with FrameDecoder() as decoder:
            for _, group in groupby(order, key=lambda place: id(frames[place].layout)):
                places = list(group)
                indices = [frames[place].index for place in places]
                stored = _stored(frames[places[0]].layout, indices, decoder=decoder)
                for place, raw in zip(places, stored, strict=True):
                    slope, intercept = np.float32(frames[place].slope), np.float32(frames[place].intercept)
                    pixels[place] = raw.astype(np.float32) * slope + intercept
    except RecordRefused:
        raise
    except Exception as error:  # too few bytes, a broken tag, whatever a decoder raises
        raise RecordRefused("cine-unreadable", "a frame's pixels cannot be decoded") from error
    return pixels


def _stored(layout: PixelLayout, indices: list[int], *, decoder: FrameDecoder) -> Iterator[np.ndarray]:
    """The stored values of some frames of a file, in the order of their indices."""
    wanted_bytes = layout.rows * layout.columns * layout.frames * max(layout.bits_allocated // 8, 1)
    content = layout.file.read(HEADER_BYTES + wanted_bytes + _MARGIN_BYTES)
    offset = layout.offset
    if offset is None:
        _, offset = parse_header(content[:HEADER_BYTES], tags=WANTED[:1], budget=ItemBudget())
    if offset is None:
        raise ValueError("no pixels")
    # Tag 4 bytes, then VR 2, reserved 2 and length 4, or in implicit form the length alone.
    start = offset + (8 if layout.transfer_syntax == ImplicitVRLittleEndian else 12)
    length = int.from_bytes(content[start - 4 : start], "little")
    if layout.transfer_syntax not in _PLAIN:
        value = io.BytesIO(content)
        value.seek(start)
        wanted = set(indices)
        for index, stream in enumerate(generate_frames(value, number_of_frames=layout.frames)):
            if index in wanted:
                yield decoder.decode(stream, layout)
        return
    kind = _KINDS.get((layout.bits_allocated, layout.is_signed))
    if kind is None:
        raise RecordRefused("cine-unsupported", f"{layout.bits_allocated} bits a pixel")
    size = layout.rows * layout.columns
    if length < size * layout.frames * np.dtype(kind).itemsize:
        raise ValueError("fewer pixels than promised")
    for index in indices:
        place = start + index * size * np.dtype(kind).itemsize
        yield np.frombuffer(content, dtype=kind, count=size, offset=place).reshape(
            layout.rows, layout.columns
        )
