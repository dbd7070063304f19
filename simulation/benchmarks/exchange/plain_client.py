"""Bare Flower: a ClientApp that trains nothing and measures nothing."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Give the model back."""
    arrays = message.content.array_records["arrays"]
    if context.run_config["reply"] == "changed":
        shift = (int(context.node_config["site"]) + 1) * 1e-6
        arrays = ArrayRecord({name: Array(array.numpy() + type(array.numpy().flat[0])(shift))
                              for name, array in arrays.items()})  # fmt: skip
    metrics = MetricRecord({"loss": 1.0, "num-examples": 100})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Say a loss."""
    return Message(
        RecordDict({"metrics": MetricRecord({"loss": 1.0, "num-examples": 100})}), reply_to=message
    )
