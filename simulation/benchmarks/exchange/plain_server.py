"""Bare Flower: its own FedAvg as it comes, which trains and evaluates in every round.

Runs inside Flower's ServerApp process; leaves a mark at the end of each round and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Array, ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from simulation.benchmarks.exchange.synthetic import forget_peak, mark, memory, tensors

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    config = context.run_config
    marks, sites = Path(str(config["marks"])), int(config["sites"])
    forget_peak()
    mark(marks, "begin", **memory())
    model = tensors(int(config["model-bytes"]), int(config["arrays"]))
    arrays = ArrayRecord({name: Array(value) for name, value in model.items()})
    del model

    def after(number: int, found: ArrayRecord) -> MetricRecord | None:
        mark(marks, "round", round=number, **memory())
        return None

    strategy = FedAvg(min_train_nodes=sites, min_evaluate_nodes=sites, min_available_nodes=sites)
    strategy.start(grid, arrays, num_rounds=int(config["rounds"]), evaluate_fn=after)
    mark(marks, "end", **memory())
