"""Bodies come through whole, few are in memory however many callers there are, and slow ones stop nobody."""

import asyncio
import gc
import os
import weakref
from pathlib import Path

import pytest
from starlette.middleware.base import BaseHTTPMiddleware

from server.link.bodies import AT_WORK, SWEEP_AFTER, WholeBodies
from server.link.faults import COME_AGAIN, ComeAgain
from server.link.shelf import IN_MEMORY, SLICE_BYTES, Shelf

PUSH = "/v1/fleet/push-object"


class Echo:
    """Answers with the body, and notes how many calls are inside at once."""

    def __init__(self):
        self.inside = self.most = self.messages = 0

    async def __call__(self, scope, receive, send):
        self.inside += 1
        self.most = max(self.most, self.inside)
        body, more = b"", True
        while more:
            message = await receive()
            self.messages += 1
            body, more = body + message["body"], message["more_body"]
        await asyncio.sleep(0.001)
        self.inside -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


class Caller:
    """Sends a body part by part and collects the answer; each can be held up by an event."""

    def __init__(self, parts, *, path=PUSH, before_last=None, before_read=None, goes=False):
        self.parts, self.path = list(parts), path
        self.before_last, self.before_read, self.goes = before_last, before_read, goes
        self.status, self.answer, self.largest = 0, b"", 0

    async def receive(self):
        await asyncio.sleep(0)
        if len(self.parts) == 1 and self.before_last is not None:
            await self.before_last.wait()
        if not self.parts or (self.goes and len(self.parts) == 1):
            return {"type": "http.disconnect"}
        part = self.parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(self.parts)}

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if self.before_read is not None:
            await self.before_read.wait()
        self.answer += message["body"]
        self.largest = max(self.largest, len(message["body"]))

    async def call(self, app):
        scope = {"type": "http", "method": "POST", "path": self.path, "headers": []}
        await app(scope, self.receive, self.send)


@pytest.fixture(autouse=True)
def nothing_stays_frozen():
    yield
    gc.unfreeze()


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "waiting", in_memory=2)


@pytest.mark.parametrize("in_memory", [0, 2])
@pytest.mark.parametrize("path", [PUSH, "/v1/fleet/pull-messages"])
def test_a_body_comes_in_one_piece_and_the_answer_whole(tmp_path, in_memory, path):
    sent = os.urandom(3 * SLICE_BYTES + 7)
    echo, shelf = Echo(), Shelf(tmp_path / "waiting", in_memory=in_memory)
    caller = Caller([sent[start : start + 50_001] for start in range(0, len(sent), 50_001)], path=path)
    asyncio.run(caller.call(WholeBodies(echo, shelf=shelf)))
    assert caller.answer == sent and caller.status == 200
    assert echo.messages == 1
    if path == PUSH:
        assert caller.largest == SLICE_BYTES
    assert shelf.free == in_memory and not any(each.is_file() for each in tmp_path.rglob("*"))


def test_many_callers_come_through_and_few_are_at_work(tmp_path):
    echo, shelf = Echo(), Shelf(tmp_path)
    callers = [Caller([os.urandom(1000), os.urandom(500)]) for _ in range(40)]
    sent = [b"".join(caller.parts) for caller in callers]

    async def all_of_them():
        app = WholeBodies(echo, shelf=shelf)
        await asyncio.gather(*(caller.call(app) for caller in callers))

    asyncio.run(all_of_them())
    assert [caller.answer for caller in callers] == sent
    assert echo.most == AT_WORK
    assert shelf.free == IN_MEMORY


@pytest.mark.parametrize("slow_at", ["before_last", "before_read"])
def test_slow_callers_hold_no_place_and_no_memory(shelf, slow_at):
    in_memory = []

    async def slow_and_fast():
        gate, app = asyncio.Event(), WholeBodies(Echo(), shelf=shelf)
        slow = [Caller([b"a" * 10_000, b"b"], **{slow_at: gate}) for _ in range(12)]
        tasks = [asyncio.create_task(caller.call(app)) for caller in slow]
        await asyncio.sleep(0.05)
        in_memory.append(shelf.free)
        fast = Caller([b"quick"])
        await asyncio.wait_for(fast.call(app), 5)
        assert fast.answer == b"quick"
        assert not any(task.done() for task in tasks)
        gate.set()
        await asyncio.gather(*tasks)
        assert all(caller.answer == b"a" * 10_000 + b"b" for caller in slow)

    asyncio.run(slow_and_fast())
    assert in_memory == [0]  # two wait in memory, ten in files
    assert shelf.free == 2


def test_a_caller_who_goes_leaves_nothing_behind(shelf):
    echo, caller = Echo(), Caller([b"one", b"two"], goes=True)
    asyncio.run(caller.call(WholeBodies(echo, shelf=shelf)))
    assert echo.messages == 0 and caller.status == 0
    assert shelf.free == 2


def test_a_fault_inside_gives_the_places_back(shelf):
    async def fails(scope, receive, send):
        await receive()
        raise RuntimeError("database is locked")

    async def more_than_there_are_places():
        app = ComeAgain(WholeBodies(fails, shelf=shelf))
        callers = [Caller([b"x"]) for _ in range(2 * AT_WORK)]
        for caller in callers:
            await asyncio.wait_for(caller.call(app), 5)
        return callers

    assert {caller.status for caller in asyncio.run(more_than_there_are_places())} == {COME_AGAIN}
    assert shelf.free == 2


def test_a_full_disk_under_waiting_bodies_asks_to_come_again(tmp_path, monkeypatch):
    def full(*of, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("server.link.shelf.tempfile.TemporaryFile", full)
    caller = Caller([b"x"])
    asyncio.run(caller.call(ComeAgain(WholeBodies(Echo(), shelf=Shelf(tmp_path, in_memory=0)))))
    assert caller.status == COME_AGAIN


def test_waiting_bodies_have_no_names(tmp_path):
    with Shelf(tmp_path, in_memory=0).body() as body:
        body.add(b"weights")
        assert list(Path(tmp_path).iterdir()) == []
        assert body.take() == b"weights"


class Weighty(bytearray):
    """Bytes that can be watched."""


def test_what_middleware_of_flowers_kind_leaves_behind_is_swept_up(shelf):
    watched = []

    async def inner(scope, receive, send):
        await receive()
        held = Weighty(1000)
        watched.append(weakref.ref(held))
        cycle = {"body": held}
        cycle["itself"] = cycle
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def passes(request, call_next):
        return await call_next(request)

    app = WholeBodies(BaseHTTPMiddleware(inner, dispatch=passes), shelf=shelf)
    gc.disable()
    try:
        for _ in range(3 * SWEEP_AFTER):
            asyncio.run(Caller([b"x"]).call(app))
    finally:
        gc.enable()
    assert sum(found() is not None for found in watched) <= SWEEP_AFTER
