"""The only door for YAML: a file becomes a strict, frozen document or one error that lists every fault.

Comes in: the path of a study, site or scenario document. Goes out: a pydantic model. Does not open
any path that the document names.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cardionets_core.config.faults import fault_lines
from cardionets_core.errors import ConfigError

MAXIMUM_BYTES = 1_000_000
DEEPEST = 40
"""Lists and mappings inside each other; no document of ours has ten."""
MOST_FAULTS = 50
"""That are told of one document."""


class Document(BaseModel):
    """Base of every configuration model: strict, frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


DocumentT = TypeVar("DocumentT", bound=Document)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML would silently keep the last), aliases, and depth.

    A few aliases of aliases, or of merged mappings, unfold to more than any memory holds.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; called again for each node inside of it."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _found_bad("aliases are not read", event)
        if self.depth == DEEPEST:
            raise _found_bad("it is nested too deeply", event)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _found_bad(what: str, event: Any) -> yaml.composer.ComposerError:
    return yaml.composer.ComposerError(None, None, what, event.start_mark)


def _mapping_without_duplicates(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(
                None, None, "a list or mapping stands as a key", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)
# YAML 1.1 takes yes, no, on and off for booleans, keys included; YAML 1.2 and people's tables do not.
_StrictLoader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile("true|True|TRUE|false|False|FALSE") if tag.endswith(":bool") else pattern)
        for tag, pattern in resolvers
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Args:
        path: the file.

    Returns:
        The mapping, made of plain Python values only.

    Raises:
        ConfigError: the file is absent, no plain file, too large, not UTF-8, not YAML, or not a mapping.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
            raise ConfigError(
                f"{path} is no plain file", where=str(path), remedy="name the document itself, as a file"
            )
        size = state.st_size
        if size > MAXIMUM_BYTES:
            raise ConfigError(f"{path.name} has {size} bytes; no document is that large", where=str(path))
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path}", where=str(path), remedy="check the path, or write the file first"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", where=str(path)) from error
    return _mapping(text, where=str(path))


def read_text_mapping(content: bytes, *, where: str) -> dict[str, Any]:
    """Read a mapping from the bytes of a document that is no file yet, as one in a startup kit.

    Raises:
        ConfigError: too large, not UTF-8, not YAML, or not a mapping.
    """
    if len(content) > MAXIMUM_BYTES:
        raise ConfigError(f"the document has {len(content)} bytes; none is that large", where=where)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the document cannot be read: {error}", where=where) from error
    return _mapping(text, where=where)


def _mapping(text: str, *, where: str) -> dict[str, Any]:
    try:
        # _StrictLoader is a SafeLoader: it builds plain values only.
        content = yaml.load(text, Loader=_StrictLoader)
    except Exception as error:  # a wrong date, number or tag makes the library fail in every way that it can
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or f"it cannot be read ({type(error).__name__})"
        raise ConfigError(
            f"not valid YAML: {problem}", where=f"{where}{line}", remedy="mend that line"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError("the document is not a mapping of keys to values", where=where)
    if not _is_text(content):
        raise ConfigError("the document holds a half of a character", where=where, remedy="write it in UTF-8")
    return content


def _is_text(value: Any) -> bool:
    """Whether all text in a value can be written again; an escape can name half of a character alone."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in value)
    if isinstance(value, dict):
        return all(_is_text(each) for pair in value.items() for each in pair)
    return not isinstance(value, list | tuple | set) or all(_is_text(each) for each in value)


def parse_document(model: type[DocumentT], content: dict[str, Any], *, where: str) -> DocumentT:
    """Check a mapping against a model, and tell every fault at once.

    Raises:
        ConfigError: lists each wrong key with its place and what is expected there.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        items = error.errors(include_url=False)
        faults = [f"  - {line}" for line in fault_lines(model, items[:MOST_FAULTS])]
        more = max(0, len(items) - MOST_FAULTS)
        count = len(faults) + more
        if more:
            faults.append(f"  - and {more} more")
        raise ConfigError(
            f"{count} fault(s) in the document:\n" + "\n".join(faults),
            where=where,
            remedy="mend the keys named above"
            + ("; unknown keys are refused" if any(i["type"] == "extra_forbidden" for i in items) else ""),
        ) from None


def read_document(model: type[DocumentT], path: Path) -> DocumentT:
    """Read and check one document; see ``read_mapping`` and ``parse_document``."""
    return parse_document(model, read_mapping(path), where=str(path))
