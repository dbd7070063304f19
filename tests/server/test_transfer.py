"""The ServerApp's grid moves the same messages as Flower's, in fewer copies; written for one Flower."""

import hashlib
import importlib
import importlib.metadata
import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from cardionets_core.errors import ReplyRefusedError
from server.link import transfer
from server.rounds import SiteLink


@pytest.fixture
def message(monkeypatch):
    monkeypatch.setattr("flwr.app.message.array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 1000)
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)
    generator = np.random.default_rng(3)
    arrays = {
        "big": generator.random((40, 50), dtype=np.float32),
        "same": generator.random((40, 50), dtype=np.float32),
        "zeros": np.zeros(5000, dtype=np.float32),  # all its pieces are one
        "scalar": np.full((), 3.0),
        "zeros again": np.zeros((4, 1500), dtype=np.float32),
        "none": np.zeros((0, 3), dtype=np.float32),
    }
    arrays["same"][:] = arrays["big"]
    content = RecordDict({
        "arrays": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
        "fields": ConfigRecord({"a": 1, "b": "text"}),
        "numbers": MetricRecord({"loss": 0.5}),
    })  # fmt: skip
    made = Message(content, dst_node_id=9, message_type="train")
    made.metadata.__dict__["_message_id"] = made.object_id
    return made, arrays


def contents_of(message):
    return {name: found.deflate() for name, found in get_all_nested_objects(message).items()}


def test_a_message_is_put_together_as_flower_does(message):
    made, arrays = message
    contents = contents_of(made)
    plain = inflate_object_from_contents(made.object_id, dict(contents))
    ours = transfer.put_together(inflate_object_from_contents, made.object_id, contents)
    assert contents == {}
    assert ours.object_id == plain.object_id == made.object_id
    found = ours.content.array_records["arrays"]
    assert list(found) == list(plain.content.array_records["arrays"])
    for name, array in found.items():
        np.testing.assert_array_equal(array.numpy(), arrays[name])
    assert dict(ours.content.config_records["fields"]) == {"a": 1, "b": "text"}


def of_kind(contents, kind):
    return next(name for name, content in contents.items() if content.startswith(kind + b" "))


def another_root(contents, root):
    return of_kind(contents, b"RecordDict")


def without_a_piece(contents, root):
    del contents[of_kind(contents, b"ArrayChunk")]
    return root


def no_json(contents, root):
    name = of_kind(contents, b"Array")
    contents[name] = contents[name].replace(b"{", b"[" * 100_000, 1)
    return root


def no_head(contents, root):
    contents[of_kind(contents, b"Array")] = b"Array \xff\x00"
    return root


def one_piece_many_times(contents, root):
    """A terabyte of a megabyte."""
    name = of_kind(contents, b"Array")
    head, _, body = contents[name].partition(b"\0")
    fact = json.loads(body)
    fact["arraychunk_ids"] = [0] * 1_000_000
    contents[name] = head + b"\0" + json.dumps(fact).encode()
    contents[head.decode().split(" ")[1].split(",")[0]] += bytes(1_000_000)
    return root


@pytest.mark.parametrize("wound", [another_root, without_a_piece, no_json, no_head, one_piece_many_times])
def test_what_is_no_message_loses_one_reply_and_not_the_study(message, wound):
    made, _ = message
    contents = contents_of(made)
    root = wound(contents, made.object_id)
    found = transfer.put_together(inflate_object_from_contents, root, contents)
    assert contents == {} and found.error.code == transfer.UNREADABLE
    grid = SimpleNamespace(pull_messages=lambda numbers: [found])
    answer = SiteLink(grid).pull("m1", node=9, seconds=1.0)
    assert (answer.node, answer.reply, answer.code) == (9, None, ReplyRefusedError.code)


def test_pieces_go_out_a_few_at_a_time(message):
    made, _ = message
    objects, sent = get_all_nested_objects(made), {}
    wanted = set(list(objects)[::2])
    contents = {name: objects[name].deflate() for name in wanted}
    at_work, most, lock = 0, 0, threading.Lock()

    def push(name, content):
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        sent[name] = content
        with lock:
            at_work -= 1

    transfer.push_objects(objects, push, object_ids_to_push=wanted)
    assert sent == contents
    assert most <= transfer.WORKERS
    assert not wanted & set(objects)


def test_what_cannot_be_sent_is_raised(message):
    made, _ = message

    def push(name, content):
        raise OSError(hashlib.sha256(content).hexdigest())

    with pytest.raises(OSError):
        transfer.push_objects(get_all_nested_objects(made), push)


def test_flowers_grid_has_the_names_that_are_changed(monkeypatch):
    assert importlib.metadata.version("flwr").startswith(f"{transfer.FLWR_MINOR}.")
    grid = importlib.import_module("flwr.superlink.grid.http_grid")
    for name in ("push_objects", "pull_objects", "inflate_object_from_contents"):
        monkeypatch.setattr(grid, name, getattr(grid, name))
    before = grid.pull_objects
    transfer.move_bytes_sparingly()
    transfer.move_bytes_sparingly()
    assert grid.push_objects is transfer.push_objects
    assert grid.pull_objects.func is before
    assert grid.pull_objects.keywords["initial_backoff"] == transfer.FIRST_S
