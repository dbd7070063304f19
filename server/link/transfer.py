"""How the ServerApp's side of the grid moves bytes: a few pieces at a time out, one copy of a reply in.

Flower prepares all pieces of an order before the first is away, and puts a reply together by way of three
copies; beside a model of some size that is most of a server's memory. It also waits 1, 2, 4 and at most 10 s
between two looks at a piece that is still on its way, and a SuperNode announces its reply before it sends the
bytes. What a SuperNode pushed is a stranger's: where it is no message, one reply is lost and not the study.
Uses names of Flower that are not public (written for flwr 1.41; a test says so when that changes).
"""

from __future__ import annotations

import functools
import importlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

FLWR_MINOR = "1.41"
FIRST_S = 0.05
LONGEST_S = 1.0
LONGEST_WAIT_S = 1800.0
"""For all pieces of one reply; the link forgets a transfer that stands still long before."""
WORKERS = 2
UNREADABLE = 900
"""Code of an answer whose objects are no message; Flower's own codes are below."""
MOST_REPEATED = 1 << 30
"""Bytes by which the arrays of a message may be larger than what came: Flower sends equal pieces once."""


def move_bytes_sparingly() -> None:
    """Change Flower's grid of this process; a second call changes nothing."""
    grid: Any = importlib.import_module("flwr.superlink.grid.http_grid")
    if grid.push_objects is push_objects:
        return
    grid.push_objects = push_objects
    grid.pull_objects = functools.partial(
        grid.pull_objects,
        initial_backoff=FIRST_S,
        backoff_cap=LONGEST_S,
        max_tries_per_object=None,
        max_time=LONGEST_WAIT_S,
    )
    grid.inflate_object_from_contents = functools.partial(put_together, grid.inflate_object_from_contents)


def push_objects(
    objects: dict[str, Any],
    push_object_fn: Callable[[str, bytes], None],
    *,
    object_ids_to_push: set[str] | None = None,
) -> None:
    """Push objects, each laid out only when it is its turn.

    Args:
        objects: by their names; emptied.
        push_object_fn: sends one.
        object_ids_to_push: which; all by default.
    """
    wanted = [name for name in objects if object_ids_to_push is None or name in object_ids_to_push]

    def push(name: str) -> None:
        push_object_fn(name, objects.pop(name).deflate())

    under_way: set[Future[None]] = set()
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        for name in wanted:
            if len(under_way) >= WORKERS:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                _raise_first(done)
            under_way.add(pool.submit(push, name))
    _raise_first(under_way)


def put_together(inflate: Callable[..., Any], object_id: str, contents: dict[str, bytes]) -> Any:
    """A message from its objects, whose arrays take over their pieces one by one.

    Args:
        inflate: Flower's way.
        object_id: of the message.
        contents: of all its objects; emptied.

    Returns:
        The message, or one with the error ``UNREADABLE``.
    """
    app: Any = importlib.import_module("flwr.app")
    try:
        found = _message(inflate, object_id, contents)
        if not isinstance(found, app.Message):
            raise ValueError("the objects are no message")
        return found
    except Exception:  # whatever is wrong with a stranger's bytes
        contents.clear()
        metadata = app.Metadata(
            run_id=0, message_id="", src_node_id=0, dst_node_id=0, reply_to_message_id="", group_id="",
            created_at=0.0, ttl=0.0, message_type="query",
        )  # fmt: skip
        error = app.Error(code=UNREADABLE, reason="the objects are no message")
        return importlib.import_module("flwr.app.message").make_message(metadata=metadata, error=error)


def _message(inflate: Callable[..., Any], object_id: str, contents: dict[str, bytes]) -> Any:
    app: Any = importlib.import_module("flwr.app")
    facts, pieces, uses = {}, {}, Counter[str]()
    for name in [name for name, content in contents.items() if content.startswith(b"Array ")]:
        head, _, body = contents.pop(name).partition(b"\0")
        children, facts[name] = head.decode().split(" ")[1].split(","), json.loads(body)
        pieces[name] = [children[place] for place in facts[name]["arraychunk_ids"]]
        uses.update(pieces[name])
    came = sum(map(len, contents.values()))
    if sum(len(contents[name]) * count for name, count in uses.items()) > came + MOST_REPEATED:
        raise ValueError("pieces are repeated beyond measure")
    objects: dict[str, Any] = {}
    for name, fact in facts.items():
        array = app.Array(fact["dtype"], tuple(fact["shape"]), fact["stype"], b"")
        array.data = _joined(contents, pieces[name], uses)
        objects[name] = array
    for name in [name for name, content in contents.items() if content.startswith(b"ArrayRecord ")]:
        # Flower's own way would ask for the pieces as bytes, which is one copy more.
        record = app.ArrayRecord({})
        for key, array in json.loads(contents.pop(name).partition(b"\0")[2]).items():
            record[key] = objects[array]
        objects[name] = record
    return inflate(object_id, contents, objects=objects)


def _joined(contents: dict[str, bytes], pieces: list[str], uses: Counter[str]) -> memoryview:
    """The pieces in their order, in one place; a piece goes when it was copied for the last time."""
    starts = {name: contents[name].index(b"\0") + 1 for name in set(pieces)}
    # numpy's memory comes into being where it is written; a bytearray is filled with zeros first.
    size = sum(len(contents[name]) - starts[name] for name in pieces)
    joined = memoryview(np.empty(size, dtype=np.uint8).data)
    place = 0
    for name in pieces:
        with memoryview(contents[name]) as whole, whole[starts[name] :] as piece:
            joined[place : place + len(piece)] = piece
            place += len(piece)
        uses[name] -= 1
        if not uses[name]:
            del contents[name]
    return joined


def _raise_first(done: Iterable[Future[None]]) -> None:
    for future in done:
        future.result()
