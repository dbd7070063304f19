"""The way to the sites: Flower's numbers, waits that end, a SuperLink that is away for a moment."""

import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from cardionets_core.errors import UnreachableError
from cardionets_core.exchange.messages import Order, PackedModule, Reply, RoundName, reply_to_envelope
from cardionets_core.exchange.tensors import Layout
from server.question import Question, ask
from server.records import to_records
from server.rounds import (
    CLIENT_APP_ERROR,
    CODES,
    INVALID_FAB,
    NODE_UNAVAILABLE,
    REPLY_EXPIRED,
    SiteLink,
    wire_fault,
)
from simulation.local_grid import LocalGrid

NAME = RoundName(study_digest="0" * 64, phase=0, round=1, attempt=1)
ORDER = Order(kind="train", name=NAME, study_json="{}")


def app(site="alpha"):
    made = ClientApp()

    @made.train()
    def train(message, context):
        return Message(to_records(reply_to_envelope(Reply(site=site, name=NAME))), reply_to=message)

    return made


def test_the_numbers_of_errors_are_those_of_the_installed_flower():
    from flwr.common.constant import ErrorCode

    assert ErrorCode.NODE_UNAVAILABLE == NODE_UNAVAILABLE
    assert ErrorCode.INVALID_FAB == INVALID_FAB
    assert ErrorCode.REPLY_MESSAGE_UNAVAILABLE == REPLY_EXPIRED
    assert ErrorCode.CLIENT_APP_RAISED_EXCEPTION == CLIENT_APP_ERROR


@pytest.mark.parametrize(
    "number, code",
    [(4, "late"), (5, "unreachable"), (7, "code-not-approved"), (2, "crashed"), (8, "crashed")],
)
def test_an_error_of_flower_becomes_a_code(number, code):
    class Failing(LocalGrid):
        def _answer(self, message):
            return Message(Error(number, "a stranger's text"), reply_to=message)

    (answer,) = ask(SiteLink(Failing([app()])), {1000: ORDER}, deadline_s=5)
    assert (answer.reply, answer.code) == (None, code)
    assert CODES.get(number, "crashed") == code


def test_a_silent_site_is_late_at_the_deadline_and_its_reply_is_thrown_away_when_it_comes():
    quiet = [True]
    grid = LocalGrid(
        [app("alpha"), app("beta")], silent=lambda m: quiet[0] and m.metadata.dst_node_id == 1000
    )
    start = time.monotonic()
    link = SiteLink(grid)
    answers = {a.node: a for a in ask(link, {1000: ORDER, 1001: ORDER}, deadline_s=0.3)}
    assert time.monotonic() - start < 5
    assert answers[1000].code == "late" and answers[1001].code == ""
    quiet[0] = False
    assert [a.node for a in ask(link, {1001: ORDER}, deadline_s=5)] == [1001]
    assert not grid._waiting, "the late reply still lies on the link"


def test_a_node_that_cannot_be_reached_is_told_at_once():
    class Full(LocalGrid):
        def push_messages(self, messages):
            messages = list(messages)
            return [None, *super().push_messages(messages[1:])]

    answers = {
        a.node: a.code
        for a in ask(SiteLink(Full([app("alpha"), app("beta")])), {1000: ORDER, 1001: ORDER}, deadline_s=5)
    }
    assert answers == {1000: "unreachable", 1001: ""}


class Away(LocalGrid):
    """Loses the connection for some calls."""

    failures = 2
    error: Exception = ConnectionError("gone")

    def _fail(self):
        if self.failures:
            self.failures -= 1
            raise self.error

    def get_nodes(self):
        self._fail()
        return super().get_nodes()

    def push_messages(self, messages):
        self._fail()
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        self._fail()
        return super().pull_messages(message_ids)


def test_a_model_on_its_way_is_held_once():
    values = np.zeros(8, dtype=np.float32)
    alive = weakref.ref(values)
    module = PackedModule(layout=Layout(names=("w",), shapes=((8,),)), values=values)
    orders = dict.fromkeys((1000, 1001), replace(ORDER, modules={"m": module}))
    seen = []

    class Watched(LocalGrid):
        def push_messages(self, messages):
            messages = list(messages)
            seen.extend((alive(), message.metadata.dst_node_id) for message in messages)
            return super().push_messages(messages)

    del values, module
    pushed = SiteLink(Watched([app("alpha"), app("beta")])).push(orders, ttl_s=5)
    assert seen == [(None, 1000), (None, 1001)], "the order's own tensors wait beside the laid out ones"
    assert sorted(pushed.values()) == [1000, 1001] and orders == {}


@pytest.mark.parametrize("failures", [1, 3])
def test_a_superlink_that_is_away_for_a_moment_costs_nothing(failures):
    grid = Away([app()])
    link = SiteLink(grid, poll_s=0.001)
    grid.failures = failures
    assert link.nodes() == {1000: ""}
    question = Question(link, ttl_s=5)
    grid.failures = failures
    assert question.send({1000: ORDER}) == []
    grid.failures = failures
    assert [a.reply.site for a, _ in question.answers(until=time.monotonic() + 5)] == ["alpha"]


def test_a_superlink_that_stays_away_ends_as_unreachable():
    grid = Away([app()])
    grid.failures = 10**9
    with pytest.raises(UnreachableError, match="kept"):
        SiteLink(grid, poll_s=0.001, patience_s=0.05).nodes()


def test_an_error_that_is_no_matter_of_the_wire_passes_and_a_refusal_is_not_asked_again():
    grid = Away([app()])
    grid.error = KeyError("bug")
    with pytest.raises(KeyError):
        SiteLink(grid).nodes()

    class Response:
        status_code = 401

    error = type("HTTPStatusError", (Exception,), {"__module__": "httpx"})("no")
    assert wire_fault(error) == "away"
    error.response = Response()
    assert wire_fault(error) == "refused"


def test_what_is_waited_for_is_told():
    told = []
    grid = LocalGrid([app()], silent=lambda message: True)
    link = SiteLink(grid, poll_s=0.01)
    link.on_wait = told.append
    before = time.time()
    assert [a.code for a in ask(link, {1000: ORDER}, deadline_s=0.2)] == ["late"]
    waiting = [w for w in told if w is not None]
    assert waiting and told[-1] is None
    assert waiting[0].reason == "train" and set(waiting[0].since) == {1000}
    assert before <= waiting[0].since[1000] <= waiting[0].until < before + 5
