"""Decompresses frames for ``frame_decoder.py``, in a process of its own (step 2 of the walk).

The decoders of compressed images are C and C++ code that a hostile or torn file can crash: GDCM's lossless
JPEG aborted on about one in a thousand mutated files. Here that ends this process and not the one that reads.

On standard input come requests: a line of JSON (the decoder's options and ``bytes``), then that many bytes,
one frame. On standard output go answers: a line of JSON, either ``error`` (``unsupported`` or ``torn``) or
``kind`` and ``bytes``, then that many bytes. It imports nothing of the project, for it is run by its path.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

MEMORY_BYTES = 4_000_000_000


def main() -> None:
    """Answer requests until the input ends."""
    warnings.simplefilter("ignore")
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    _limit_memory()
    while line := requests.readline():
        request = json.loads(line)
        answer, content = _decode(requests.read(request.pop("bytes")), request)
        answers.write(json.dumps(answer).encode() + b"\n" + content)
        answers.flush()


def _decode(frame: bytes, options: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(options.pop("transfer_syntax"))
    except NotImplementedError:
        return {"error": "unsupported"}, b""
    if not decoder.is_available:
        return {"error": "unsupported"}, b""
    try:
        pixels, _ = decoder.as_array(encapsulate([frame]), raw=True, **options)
    except Exception:  # whatever a decoder raises
        return {"error": "torn"}, b""
    content = pixels.tobytes()
    return {"kind": pixels.dtype.str, "bytes": len(content)}, content


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (ImportError, OSError, ValueError):  # not on this system
        return


if __name__ == "__main__":
    main()
