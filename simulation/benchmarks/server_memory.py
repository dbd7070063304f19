"""Peak memory of the server in one round, with 2 and with 16 sites and a model of 50 MB.

Each case runs in a process of its own: the replies come over an in-process grid, are checked, stored and
combined by the real round store and the real strategy. The baseline is the case with 2 sites.
``python -m simulation.benchmarks.server_memory`` prints one JSON line a case.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

CASES = (2, 16)
VALUES = 13_107_200  # 50 MiB of float32


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every case in a process of its own, or one case in this one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, help="run one case here")
    parser.add_argument("--values", type=int, default=VALUES, help="float32 values of the model")
    options = parser.parse_args(arguments)
    if options.sites:
        write(one_round(options.sites, values=options.values))
        return
    base = None
    for sites in CASES:
        command = [
            sys.executable,
            "-m",
            __spec__.name,
            "--sites",
            str(sites),
            "--values",
            str(options.values),
        ]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        base = base or found["round_bytes"]
        write(found | {"ratio_to_2_sites": round(found["round_bytes"] / base, 3)})


def write(content: dict[str, object]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps({"schema_version": 1, "benchmark": "server-memory", **content}) + "\n")


def one_round(sites: int, *, values: int) -> dict[str, object]:
    """One round of as many sites, each replying with a model of its own.

    Returns:
        Peak memory of the process, what of it came with the round, and seconds.
    """
    import numpy as np
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp

    from cardionets_core.config.study import ReplyBounds
    from cardionets_core.exchange.messages import Order, PackedModule, Reply, RoundName, reply_to_envelope
    from cardionets_core.exchange.tensors import Layout
    from server.question import ask
    from server.records import to_records
    from server.reply_checks import check_reply
    from server.round_store import RoundStore
    from server.rounds import SiteLink
    from simulation.local_grid import LocalGrid
    from strategies import make_strategy

    layout = Layout(names=("w",), shapes=((values,),))
    name = RoundName(study_digest="00" * 32, phase=0, round=1, attempt=1)

    def site_app(site: str, seed: int) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            drawn = np.random.default_rng(seed).random(values, dtype=np.float32)
            module = PackedModule(layout=layout, values=drawn)
            reply = Reply(site=site, name=name, modules={"m": module}, samples={"m": 100 + seed})
            return Message(to_records(reply_to_envelope(reply)), reply_to=message)

        return app

    names = [f"site-{index:02d}" for index in range(sites)]
    grid = LocalGrid([site_app(site, seed) for seed, site in enumerate(names)])
    before = _peak_bytes()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        np.zeros(values, dtype="<f4").tofile(work / "current.f32")
        module = PackedModule(layout=layout, values=np.zeros(values, dtype=np.float32))
        order = Order(kind="train", name=name, study_json="{}", modules={"m": module})
        orders = dict.fromkeys(grid.get_node_ids(), order)
        store = RoundStore(work / "round")
        for answer, site in zip(ask(SiteLink(grid), orders, deadline_s=600), names, strict=True):
            if answer.reply is None:
                raise RuntimeError(f"{site} gave no reply: {answer.code}")
            check_reply(answer.reply, order=order, site=site, layouts={"m": layout}, bounds=ReplyBounds())
            store.accept(answer.reply)
            del answer
        stored = time.monotonic() - start
        make_strategy("fedavg", {}).combine(
            store.module("m"), current=work / "current.f32", target=work / "next.f32"
        )
        combined = time.monotonic() - start - stored
    return {
        "sites": sites,
        "model_bytes": 4 * values,
        "peak_bytes": _peak_bytes(),
        "round_bytes": _peak_bytes() - before,
        "round_models": round((_peak_bytes() - before) / (4 * values), 2),
        "receive_s": round(stored, 2),
        "combine_s": round(combined, 2),
    }


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
