"""The ClientApp: Flower's messages in and out (steps 0 and 10 of the walk).

The only place on the client that speaks Flower. An exception that left this module would travel to the
coordinator as its full text, so nothing leaves but what the gate gave, or a code. The site's own log gets the
code and the program's words of it, and no text that could hold something of a patient.
"""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from cardionets_core.durable import is_disk_fault
from cardionets_core.errors import CardioNetsError, ConfigError, OrderRefusedError, StorageFailedError
from cardionets_core.exchange.messages import (
    Envelope,
    Order,
    Reply,
    RoundName,
    order_from_envelope,
    reply_to_envelope,
)
from cardionets_core.exchange.npy import from_npy, to_npy
from client.permission import require_guard, require_study

if TYPE_CHECKING:
    from cardionets_core.config.site import SiteConfig
    from cardionets_core.logs.log import EventLog

NUMPY = "numpy.ndarray"
"""Flower's word for the form in which an array's bytes are."""


def make_app(locate: Callable[[Context], Path]) -> ClientApp:
    """A ClientApp that serves the site whose document ``locate`` finds."""
    client_app = ClientApp()

    @client_app.query("census")
    def census(message: Message, context: Context) -> Message:
        return _handle(message, context, locate)

    @client_app.query("statistics")
    def statistics(message: Message, context: Context) -> Message:
        return _handle(message, context, locate)

    @client_app.query("secure")
    def secure(message: Message, context: Context) -> Message:
        return _handle(message, context, locate)

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        return _handle(message, context, locate)

    @client_app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return _handle(message, context, locate)

    return client_app


def site_path(context: Context) -> Path:
    """Where this node's ``site.yaml`` lies.

    A SuperNode names it in its node config (``site-config``). Flower's simulation only numbers its nodes:
    there, the run config's ``hospitals`` folder holds one folder a site, taken in the order of their names.

    Raises:
        ConfigError: neither is given, or there are fewer hospitals than nodes.
    """
    if "site-config" in context.node_config:
        return Path(str(context.node_config["site-config"]))
    hospitals, partition = context.run_config.get("hospitals"), context.node_config.get("partition-id")
    if not hospitals or partition is None:
        raise ConfigError(
            "this node was given no site document",
            where="node config: site-config",
            remedy="start the SuperNode with --node-config 'site-config=\"/path/site.yaml\"'",
        )
    found = sorted(Path(str(hospitals)).glob("*/site.yaml"))
    if int(partition) >= len(found):
        raise ConfigError(
            f"there are {len(found)} hospitals in the folder, but this is node {partition}",
            where="run config: hospitals",
            remedy="start as many SuperNodes as there are hospitals",
        )
    return found[int(partition)]


def _handle(message: Message, context: Context, locate: Callable[[Context], Path]) -> Message:
    path: Path | None = None
    order: Order | None = None
    name = RoundName(study_digest="", phase=0, round=0, attempt=0)
    begun_s = time.monotonic()
    try:
        path = locate(context)
        # Flower's simulation and in-process grids number their nodes; only a SuperNode names a document.
        store = require_guard(path) if "site-config" in context.node_config else None
        order = read_order(message)
        name = order.name
        _note(path, "order-reached", **_round_of(order))
        if store is not None:
            require_study(order, store)
        # Imported here: a broken installation must also end as a code, not as a traceback on the wire; and
        # torch is loaded for permitted orders only.
        from client.round import respond

        envelope = respond(order, site_path=path)
    except CardioNetsError as error:
        code = error.code
        _log(path, error, code=code, order=order)
        envelope = _refusal(code, path, name, order)
    except Exception as error:  # whatever it is, only its code may leave
        code = StorageFailedError.code if is_disk_fault(error) else CardioNetsError.code
        _log(path, error, code=code, order=order)
        envelope = _refusal(code, path, name, order)
    _note(path, "order-answered", seconds=round(time.monotonic() - begun_s, 3), **_round_of(order))
    return reply_message(envelope, message)


def _refusal(code: str, path: Path | None, name: RoundName, order: Order | None) -> Envelope:
    """The code with its line in the journal; without one where the installation cannot write any."""
    site, config = _site_name(path), _config(path)
    try:
        from client.leaving import refuse

        root = None if path is None else path.parent
        return refuse(code, name=name, site=site, order=order, config=config, root=root)
    except Exception as error:  # a broken installation
        _log(path, error, code=code, order=order)
        return reply_to_envelope(Reply(site=site, name=name, code=code))


def reply_message(envelope: Envelope, message: Message) -> Message:
    """What the gate gave, as Flower's answer to a message."""
    arrays = ArrayRecord(
        {
            key: Array(str(value.dtype), tuple(value.shape), NUMPY, to_npy(value))
            for key, value in envelope.arrays.items()
        }
    )
    content = RecordDict({"fields": ConfigRecord(dict(envelope.fields)), "arrays": arrays})
    return Message(content, reply_to=message)


def read_order(message: Message) -> Order:
    """The order in a message.

    Raises:
        OrderRefusedError: a record is missing, or an array or a field cannot be read.
        FormatTooNewError: the coordinator speaks a newer format.
    """
    try:
        records = message.content
        fields = dict(records.config_records["fields"])
        found = records.array_records["arrays"].items()
        if strange := [key for key, array in found if array.stype != NUMPY]:
            raise ValueError(f"{strange} came in another form")
        arrays = {key: from_npy(array.data) for key, array in found}
    except Exception as error:  # the content is a stranger's; whatever is wrong with it, it is refused
        raise OrderRefusedError("the order's records cannot be read", where="order") from error
    return order_from_envelope(Envelope(fields=fields, arrays=arrays))  # type: ignore[arg-type]


def _site_name(path: Path | None) -> str:
    """The site's name even where its document is broken: then that of its folder."""
    config = _config(path)
    name = config.site if config else "" if path is None else path.resolve().parent.name
    return name if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name) else ""


def _config(path: Path | None) -> SiteConfig | None:
    """The site's document, or None where it is broken."""
    try:
        from cardionets_core.config.site import read_site

        return None if path is None else read_site(path)
    except CardioNetsError:
        return None


def _round_of(order: Order | None) -> dict[str, Any]:
    """The fields of the log that say which order a line is of."""
    if order is None:
        return {}
    name = order.name
    return {
        "kind": order.kind,
        "study": name.study_digest,
        "phase": name.phase,
        "round": name.round,
        "attempt": name.attempt,
    }


def _note(path: Path | None, event: str, **fields: Any) -> None:
    """A line in the site's log; whatever is wrong with the log, the order goes on."""
    try:
        if path is not None and path.parent.is_dir():
            _log_of(path, _stamp(path)).write(event, **fields)
    except Exception as error:  # a broken installation
        _last_resort("the site's log cannot be written", error)


def _log(path: Path | None, error: Exception, *, code: str, order: Order | None) -> None:
    """Say on the site why an order ended; neither the log nor this process's words get the error's text."""
    if path is None or not path.parent.is_dir():
        _last_resort("the order was refused before a site was found", error)
        return
    try:
        from client.log import log_error

        log, found = _log_of(path, _stamp(path)), _round_of(order)
        if log_error(log, error, root=path.parent, config=_config(path), code=code, **found):
            return
    except Exception as fault:  # a broken installation
        _last_resort("the site's log cannot be written", fault)
    # A full or read-only disk: the code still goes out, and this process's own words have it.
    _last_resort(f"an order ended with {code}", error)


@functools.lru_cache(maxsize=64)
def _log_of(path: Path, stamp: int) -> EventLog:
    """The log of a site; its documents are read anew only where site.yaml was changed."""
    from client.log import site_log

    return site_log(path.parent, site=_site_name(path))


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _last_resort(told: str, error: Exception) -> None:
    logging.getLogger("cardionets.client").error("%s (%s)", told, type(error).__name__)


app = make_app(site_path)
