"""The ClientApp: Flower's messages in and out (steps 0 and 10 of the walk).

The only place on the client that speaks Flower. An exception that left this module would travel to the
coordinator as its full text, so nothing leaves but a reply or a code; the text goes to the site's own log.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from pathlib import Path

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

NUMPY = "numpy.ndarray"
"""Flower's word for the form in which an array's bytes are."""
LOG = "client.log"


def make_app(locate: Callable[[Context], Path]) -> ClientApp:
    """A ClientApp that serves the site whose document ``locate`` finds."""
    client_app = ClientApp()

    @client_app.query("census")
    def census(message: Message, context: Context) -> Message:
        return _handle(message, context, locate)

    @client_app.query("statistics")
    def statistics(message: Message, context: Context) -> Message:
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
    name = RoundName(study_digest="", phase=0, round=0, attempt=0)
    try:
        path = locate(context)
        # Flower's simulation and in-process grids number their nodes; only a SuperNode names a document.
        store = require_guard(path) if "site-config" in context.node_config else None
        order = read_order(message)
        name = order.name
        if store is not None:
            require_study(order, store)
        # Imported here: a broken installation must also end as a code, not as a traceback on the wire; and
        # torch is loaded for permitted orders only.
        from client.round import answer

        reply = answer(order, site_path=path)
    except CardioNetsError as error:
        _log(path, str(error))
        reply = Reply(site=_site_name(path), name=name, code=error.code)
    except Exception as error:  # whatever it is, only its code may leave
        _log(path, traceback.format_exc())
        code = StorageFailedError.code if is_disk_fault(error) else CardioNetsError.code
        reply = Reply(site=_site_name(path), name=name, code=code)
    return reply_message(reply, message)


def reply_message(reply: Reply, message: Message) -> Message:
    """A reply as Flower's answer to a message."""
    envelope = reply_to_envelope(reply)
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
    if path is None:
        return ""
    try:
        from cardionets_core.config.site import read_site

        return read_site(path).site
    except CardioNetsError:
        return path.resolve().parent.name


def _log(path: Path | None, text: str) -> None:
    """Keep the text on the site, beside its document; it never travels."""
    if path is None or not path.parent.is_dir():
        logging.getLogger("cardionets.client").error("the order was refused before a site was found")
        return
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n"
    try:
        with (path.parent / LOG).open("ab", buffering=0) as log:
            log.write(line.encode())
    except OSError:
        # A full or read-only disk: the code still goes out, the text goes to the process's own log.
        logging.getLogger("cardionets.client").error(text)


app = make_app(site_path)
