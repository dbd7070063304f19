"""A downloaded checkpoint as named tensors, read so that nothing in the file can run.

Comes in: a safetensors file, or a torch pickle. Goes out: its tensors on the CPU and the digest of its bytes.
A pickle is a program: torch's restricted reader knows tensors and plain containers only and refuses every
other name. The format is told by the content, never by the name of the file.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from cardionets_core.errors import CheckpointError, UsageError
from cardionets_core.models.published.translation import shown

MAX_BYTES = 8 << 30
MAX_TENSORS = 100_000
# Where training scripts put the weights in what they save; of an average and the last step, the average.
ENTRIES = ("model_ema", "model", "state_dict")
ZIP, PICKLE = b"PK\x03\x04", b"\x80"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """What a checkpoint holds.

    Attributes:
        tensors: by the names in the file.
        entry: under which key of the file they stood; empty where they are the whole file.
        sha256: of the file.
        size_bytes: of the file.
    """

    tensors: dict[str, torch.Tensor]
    entry: str
    sha256: str
    size_bytes: int


def read_published_file(path: Path, *, max_bytes: int = MAX_BYTES) -> PublishedFile:
    """Read a checkpoint without running anything of it.

    Args:
        path: a regular file.
        max_bytes: larger files, and archives that unpack to more, are refused.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it is too large, torn, of another format, or asks for more than tensors.
    """
    if not path.is_file():
        raise UsageError("there is no such checkpoint file", where=str(path), remedy="mend the path")
    size = path.stat().st_size
    if size > max_bytes:
        raise _refusal(path, f"the file has {size} bytes; at most {max_bytes} are read")
    with path.open("rb") as handle:
        head = handle.read(9)
    if head.startswith(ZIP):
        _check_archive(path, max_bytes=max_bytes)
        content = _unpickled(path)
    elif head.startswith(PICKLE):
        content = _unpickled(path)
    elif len(head) == 9 and head[8:] == b"{":
        content = _safetensors(path)
    else:
        raise _refusal(path, "it is neither a safetensors file nor a torch checkpoint")
    entry, tensors = _table(path, content)
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return PublishedFile(tensors=tensors, entry=entry, sha256=digest, size_bytes=size)


def _refusal(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is refused: {what}",
        where=str(path),
        remedy="download it again, or ask its publisher for a safetensors file",
    )


def _check_archive(path: Path, *, max_bytes: int) -> None:
    """torch stores its archives without compression; a compressed one can unpack to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise _refusal(path, "the archive is torn") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise _refusal(path, "the archive is compressed, which torch's are not")
    if sum(member.file_size for member in members) > max_bytes:
        raise _refusal(path, f"the archive claims more than {max_bytes} bytes")


def _unpickled(path: Path) -> Any:
    """The content of a torch pickle under the restricted reader."""
    # Training scripts keep their command line beside the weights; a Namespace holds values and runs nothing.
    try:
        # The open file instead of its path: by a path torch would choose the format by the name.
        with (
            path.open("rb") as handle,
            torch.serialization.safe_globals([argparse.Namespace]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            return torch.load(handle, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file makes the reader fail in every way that it can
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        if asked:
            raise _refusal(path, f"it asks for {shown(asked[1])}, and only tensors are read") from error
        raise _refusal(path, "it is torn, or holds more than tensors") from error


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as archive:
            return {key: archive.get_tensor(key) for key in archive.keys()}  # noqa: SIM118 - no mapping
    except Exception as error:  # as for pickles
        raise _refusal(path, "the safetensors file is torn") from error


def _table(path: Path, content: Any) -> tuple[str, dict[str, torch.Tensor]]:
    """The one table of tensors of a file, and the key that it stood under."""
    if not isinstance(content, Mapping):
        raise _refusal(path, "it holds no table of tensors")
    entry = next((key for key in ENTRIES if isinstance(content.get(key), Mapping)), "")
    table = content[entry] if entry else content
    if not table or len(table) > MAX_TENSORS:
        raise _refusal(path, f"its table of tensors has {len(table)} entries")
    strange = [
        shown(key) if isinstance(key, str) else f"under a key of type {type(key).__name__}"
        for key, value in table.items()
        if not _is_plain(key, value)
    ]
    if strange:
        raise _refusal(path, f"not a plain tensor: {', '.join(strange)}")
    return entry, {key: value.detach() for key, value in table.items()}


def _is_plain(key: object, value: object) -> bool:
    """A dense tensor under a text key, with as many values in the file as its shape says."""
    return (
        isinstance(key, str)
        and type(value) in (torch.Tensor, torch.nn.Parameter)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_nested
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )
