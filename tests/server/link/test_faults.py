"""A fault inside the SuperLink asks the caller to come again, as Flower's own clients understand it."""

import asyncio
import logging

import pytest
from fastapi import FastAPI, HTTPException
from flwr.supercore.retry import http_retry

from server.link.faults import COME_AGAIN, ComeAgain


def flower_like():
    app = FastAPI()

    @app.post("/works")
    def works():
        return {}

    @app.post("/fails")
    def fails():
        raise RuntimeError("database or disk is full\n(Background on this error at ...)")

    @app.post("/refuses")
    def refuses():
        raise HTTPException(403)

    return app


async def raw(scope, receive, send):
    raise OSError("before anything was answered")


def called(app, path):
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "path": path, "raw_path": path.encode(), "method": "POST", "headers": [],
        "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "",
    }  # fmt: skip
    asyncio.run(ComeAgain(app)(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize("path, status", [("/works", 200), ("/refuses", 403), ("/nowhere", 404)])
def test_other_answers_stay_as_they_are(path, status):
    assert called(flower_like(), path) == status


@pytest.mark.parametrize("app", [flower_like(), raw])
def test_a_fault_asks_to_come_again_and_is_told_in_one_line(app, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    assert called(app, "/fails") == COME_AGAIN
    (line,) = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert "/fails" in line and "Background" not in line


def test_flowers_clients_come_again_after_it():
    assert COME_AGAIN in http_retry._RETRYABLE_STATUS_CODES
    assert 500 not in http_retry._RETRYABLE_STATUS_CODES
