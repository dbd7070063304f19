"""Messages as bytes: one JSON text for each message, and one message for each text (row 10 of the walk).

Comes in: dataclasses that declare the form of each field. Goes out: canonical JSON with bytes in hexadecimal.
Reading is strict: other keys, other types, lengths out of bounds and a second spelling of the same content
are refused, whatever the bytes are. It judges no signature and no meaning.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from cardionets_core.privacy.secure_sum.refusals import refusal

FORMAT = 1
MAX_SITES = 256
"""In one session; bounds every list. The server's work on shares grows with its third power."""
MAX_BYTES = 4 << 20
"""Of one message or state; the largest honest ones, of ``MAX_SITES`` sites, take a quarter."""
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""A site's name, as the house spells it."""


class Malformed(ValueError):  # noqa: N818 - never leaves this package
    """A field has not its form; names the field, never its content."""


class Form(Protocol):
    """How one field is written, and what is accepted when it is read."""

    def write(self, value: Any) -> Any:
        """The value as JSON."""

    def read(self, found: Any) -> Any:
        """The value, or ``Malformed``."""


@dataclass(frozen=True, slots=True)
class Hex:
    """Bytes of a length from ``least`` to ``most``."""

    least: int
    most: int

    def write(self, value: bytes) -> str:
        """Lower-case hexadecimal."""
        return value.hex()

    def read(self, found: object) -> bytes:
        """The bytes."""
        if not isinstance(found, str) or not 2 * self.least <= len(found) <= 2 * self.most:
            raise Malformed
        if re.fullmatch(r"(?:[0-9a-f]{2})*", found) is None:
            raise Malformed
        return bytes.fromhex(found)


@dataclass(frozen=True, slots=True)
class Name:
    """A site's name, or one of a few words."""

    words: tuple[str, ...] = ()

    def write(self, value: str) -> str:
        """As it is."""
        return value

    def read(self, found: object) -> str:
        """The name."""
        if not isinstance(found, str) or NAME.fullmatch(found) is None:
            raise Malformed
        if self.words and found not in self.words:
            raise Malformed
        return found


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from ``least`` to ``most``."""

    least: int
    most: int

    def write(self, value: int) -> int:
        """As it is."""
        return value

    def read(self, found: object) -> int:
        """The number."""
        if isinstance(found, bool) or not isinstance(found, int) or not self.least <= found <= self.most:
            raise Malformed
        return found


@dataclass(frozen=True, slots=True)
class One:
    """A message inside another one, or none where that is allowed."""

    of: type[Message]
    optional: bool = False

    def write(self, value: Message | None) -> dict[str, Any] | None:
        """Its fields."""
        return None if value is None else value.to_fields()

    def read(self, found: object) -> Message | None:
        """The message."""
        return None if self.optional and found is None else self.of.from_fields(found)


@dataclass(frozen=True, slots=True)
class Several:
    """A list of at most ``MAX_SITES`` things of one form."""

    of: Form

    def write(self, value: tuple[Any, ...]) -> list[Any]:
        """Each in its form."""
        return [self.of.write(entry) for entry in value]

    def read(self, found: object) -> tuple[Any, ...]:
        """The things."""
        if not isinstance(found, list) or len(found) > MAX_SITES:
            raise Malformed
        return tuple(self.of.read(entry) for entry in found)


class Message:
    """What crosses the wire, or lies on a site's disk between two messages; subclasses are dataclasses.

    Attributes:
        KIND: stands in the bytes, so that one message is never read as another.
        FORMS: of each field.
    """

    __slots__ = ()
    KIND: ClassVar[str] = ""
    FORMS: ClassVar[Mapping[str, Form]] = {}

    def to_fields(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {key: form.write(getattr(self, key)) for key, form in self.FORMS.items()}

    @classmethod
    def from_fields(cls, found: object) -> Self:
        """The message of some fields, or ``Malformed``."""
        if not isinstance(found, dict) or found.keys() != cls.FORMS.keys():
            raise Malformed
        return cls(**{key: form.read(found[key]) for key, form in cls.FORMS.items()})

    def to_bytes(self) -> bytes:
        """The one spelling of this message."""
        whole = {"kind": self.KIND, "format": FORMAT, "fields": self.to_fields()}
        return json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a message.

        Raises:
            SecureSumError: ``malformed``: the bytes are not the one spelling of such a message.
        """
        message: Self | None = None
        # Nothing of the bytes may hang on the error that leaves, not even as its cause: they may be a state.
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            message = cls._parsed(content)
        if message is None:
            raise refusal("malformed", f"bytes came that are no {cls.KIND or 'message'} of this version")
        return message

    @classmethod
    def _parsed(cls, content: bytes) -> Self | None:
        if not isinstance(content, bytes) or len(content) > MAX_BYTES:
            return None
        whole = json.loads(content.decode("ascii"))
        if not isinstance(whole, dict) or whole.keys() != {"kind", "format", "fields"}:
            return None
        if whole["kind"] != cls.KIND or type(whole["format"]) is not int or whole["format"] != FORMAT:
            return None
        message = cls.from_fields(whole["fields"])
        return message if message.to_bytes() == content else None
