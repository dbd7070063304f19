"""Compressed frames, decompressed in a process of their own (step 2 of the walk).

Comes in: the code stream of one frame and the size that its header gives. Goes out: its stored values. The
process starts with the first compressed frame and ends with the context; one that dies or takes too long is a
torn frame.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from pydicom.uid import JPEGExtended12Bit, RLELossless

from cardionets_core.data.readers.dicom_header import PixelLayout
from cardionets_core.errors import RecordRefused

LIMIT_S = 20.0
"""For one frame; the slowest honest ones take a few hundredths of a second."""
_MARGIN_BYTES = 65_536
_PROGRAM = Path(__file__).with_name("decoder_process.py")
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""Markers after which a JPEG or JPEG-LS stream gives its size."""


class FrameDecoder:
    """Decompresses frames; a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FrameDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def decode(self, stream: bytes, layout: PixelLayout) -> np.ndarray:
        """The stored values of one frame.

        Returns:
            [Y, X], whole numbers.

        Raises:
            RecordRefused: ``cine-unsupported``: nothing here decodes it; ``cine-unreadable``: it is torn, of
                another size than the header says, or more than twice as large as plain pixels.
        """
        shape = (layout.rows, layout.columns)
        if layout.bits_allocated not in (8, 16) or (
            layout.transfer_syntax == JPEGExtended12Bit and layout.bits_stored > 8
        ):
            raise RecordRefused("cine-unsupported", "no decoder for the compressed pixels")
        if len(stream) > 2 * layout.rows * layout.columns * (layout.bits_allocated // 8) + _MARGIN_BYTES:
            raise RecordRefused("cine-unreadable", "a frame takes more room compressed than plain")
        if layout.transfer_syntax != RLELossless and claimed_size(stream) not in (None, shape):
            raise RecordRefused("cine-unreadable", "a code stream is of another size than its header")
        request = {
            "bytes": len(stream),
            "transfer_syntax": layout.transfer_syntax,
            "number_of_frames": 1,
            "rows": layout.rows,
            "columns": layout.columns,
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "pixel_keyword": "PixelData",
            "bits_allocated": layout.bits_allocated,
            "bits_stored": layout.bits_stored,
            "pixel_representation": int(layout.is_signed),
        }
        answer, content = self._ask(json.dumps(request).encode() + b"\n" + stream)
        if answer.get("error") == "unsupported":
            raise RecordRefused("cine-unsupported", "no decoder for the compressed pixels")
        if "kind" not in answer:
            raise RecordRefused("cine-unreadable", "a frame cannot be decompressed")
        return np.frombuffer(content, dtype=answer["kind"]).reshape(shape)

    def _ask(self, request: bytes) -> tuple[dict[str, Any], bytes]:
        """Answer and pixels; an empty answer where the process died."""
        if self._process is None:
            self._process = subprocess.Popen(
                # -P: the folder of the program, with its modules' plain names, is not searched for libraries.
                [sys.executable, "-P", str(_PROGRAM)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        process = self._process
        into, out = _pipe(process.stdin), _pipe(process.stdout)
        clock = threading.Timer(LIMIT_S, process.kill)
        clock.start()
        try:
            into.write(request)
            into.flush()
            answer: dict[str, Any] = json.loads(out.readline() or b"{}")
            size = int(answer.get("bytes", 0))
            content = out.read(size)
            if answer and len(content) == size:
                return answer, content
        except (OSError, ValueError):  # it died while it was asked
            pass
        finally:
            clock.cancel()
        self._stop()
        return {}, b""

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            try:
                _pipe(stream).close()
            except OSError:  # what was not sent any more
                continue


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise OSError("the process has no pipe")
    return stream


def claimed_size(stream: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream claims; (0, 0) for several components.

    Returns:
        None where the stream is of no such kind, or broken before its size.
    """
    if stream.startswith(b"\xff\x4f\xff\x51"):
        # SIZ: length, capabilities, Xsiz, Ysiz, XOsiz, YOsiz, tile sizes and offsets, components.
        width, height, left, top = (
            int.from_bytes(stream[place : place + 4], "big") for place in (8, 12, 16, 20)
        )
        return (height - top, width - left) if stream[40:42] == b"\0\1" else (0, 0)
    place = 2
    while stream.startswith(b"\xff\xd8") and place + 10 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker in _JPEG_SIZES:
            height = int.from_bytes(stream[place + 5 : place + 7], "big")
            width = int.from_bytes(stream[place + 7 : place + 9], "big")
            return (height, width) if stream[place + 9] == 1 else (0, 0)
        # A fill byte before a marker has no length of its own.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    return None
