"""What is known of a family of published checkpoints beside how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cardionets_core.models.published.translation import Named, Translation


class Translate(Protocol):
    """Reads the checkpoints of one family; see ``translate_st_mem`` for the arguments and errors."""

    def __call__(self, tensors: Named, *, preset: str, adapt: bool = False) -> Translation:
        """Translate a state dict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family.

    Attributes:
        translate: its reader.
        origin: paper and repository.
        code_licence: licence of the repository's code; that of the weights may be another.
    """

    translate: Translate
    origin: str
    code_licence: str
