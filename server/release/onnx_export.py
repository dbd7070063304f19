"""The ONNX files of a release, each held against torch before it is believed.

Comes in: an opened model. Goes out: ``window.onnx`` (windows to the feature and everything that the heads say
of each) and ``heads.onnx`` (the mean feature of a recording's windows to the same), and how far onnxruntime
is from torch. The exporter and onnxruntime are imported here alone.

A prediction is made of the mean feature. The phenotype head is not linear, so a mean of the windows' outputs
would be another number: whoever has several windows averages features and asks ``heads.onnx``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cardionets_core.data.records import LEADS
from cardionets_core.errors import MachineUnfitError
from cardionets_core.prediction.predictor import Predictor
from cardionets_core.release.refusals import OnnxDiffersError
from cardionets_core.tasks.shapes import shape_of
from server.release.onnx_examples import synthetic_windows
from server.release.onnx_model import FEATURE, Heads, Outputs, Windows

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
WINDOW_FILE, HEADS_FILE = "window.onnx", "heads.onnx"
WINDOW_INPUT = "ecg"
TOLERANCE = 1e-4
"""Of the largest magnitude of an output."""
BATCHES = (1, 2, 7)
TRIALS = 3
OPSET = 18
_SEED = 20_250_101


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        files: name to the largest difference from torch over the scale of the output.
        outputs: columns of the heads' outputs.
    """

    files: dict[str, float]
    outputs: Outputs


def check_installed() -> None:
    """The libraries of the export come with the server's extra; a hospital's installation has none of them.

    Raises:
        MachineUnfitError: names those that are not installed.
    """
    absent = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if absent:
        raise MachineUnfitError(
            f"a release needs {', '.join(absent)}, and this installation lacks it",
            where="ONNX export",
            remedy="pip install 'cardionets[server]' on the coordinator's machine",
        )


def export_onnx(model: Predictor, folder: Path) -> Exported:
    """Write both files and check them with onnxruntime, on random windows and on those of synthetic ECGs.

    Args:
        model: with an encoder and at least one head, on the CPU.
        folder: made if absent.

    Raises:
        OnnxDiffersError: an output differs from torch's by more than ``TOLERANCE`` of its scale.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heads = Heads(model).eval().requires_grad_(False)
    windows = Windows(model, heads).eval().requires_grad_(False)
    names, samples = heads.outputs.names, model.preset.ecg_samples
    with torch.no_grad():
        width = windows(torch.zeros(1, len(LEADS), samples))[0].shape[1]
    random = torch.Generator().manual_seed(_SEED)
    drawn = [
        torch.randn(batch, len(LEADS), samples, generator=random) for batch in BATCHES for _ in range(TRIALS)
    ]
    examples = torch.from_numpy(synthetic_windows(shape_of(model.preset.name)))
    short = examples[:, :, : model.preset.ecg_patch * max(1, model.preset.ecg_patches // 2)]
    tried = [*drawn, examples, *examples.split(1), short]
    with torch.no_grad():
        features = [windows.encoder(each) for each in tried]
    files = {}
    for name, module, example, given, tests, outputs in (
        (WINDOW_FILE, windows, drawn[-1][:2], WINDOW_INPUT, tried, [FEATURE, *names]),
        (HEADS_FILE, heads, torch.zeros(2, width), FEATURE, features, names),
    ):
        content = _exported(module, example, given=given, outputs=outputs)
        files[name] = _largest_difference(content, module, tests, given=given, outputs=outputs, file=name)
        (folder / name).write_bytes(content)
    return Exported(files=files, outputs=heads.outputs)


def _exported(module: nn.Module, example: torch.Tensor, *, given: str, outputs: Sequence[str]) -> bytes:
    """The graph's bytes, without what the exporter notes of this machine; the same model gives the same."""
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    if example.dim() == 3:
        dynamic[2] = torch.export.Dim.AUTO  # type: ignore[attr-defined]
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes={given: dynamic},
            input_names=[given],
            output_names=list(outputs),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # of the dynamo exporter
    graph = program.model_proto
    for part in (graph, graph.graph, *graph.functions, *graph.graph.node, *graph.graph.input,
                 *graph.graph.output, *graph.graph.value_info, *graph.graph.initializer,
                 *(node for function in graph.functions for node in function.node)):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    del graph.graph.value_info[:]
    graph.producer_name = "cardionets"
    return graph.SerializeToString(deterministic=True)


def _largest_difference(
    content: bytes,
    module: nn.Module,
    tests: Sequence[torch.Tensor],
    *,
    given: str,
    outputs: Sequence[str],
    file: str,
) -> float:
    """Over all outputs: the largest absolute difference, over the largest magnitude of that output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    apart, scale = np.zeros(len(outputs)), np.zeros(len(outputs))
    for test in tests:
        with torch.no_grad():
            wanted = module(test)
        found = session.run(list(outputs), {given: test.numpy()})
        for place, (one, other) in enumerate(zip(found, wanted, strict=True)):
            # A number that is not finite makes the maximum so, and is refused below.
            apart[place] = np.maximum(apart[place], np.abs(one - other.numpy()).max())
            scale[place] = np.maximum(scale[place], np.abs(other.numpy()).max())
    relative = apart / np.maximum(scale, np.finfo(np.float32).tiny)
    worst = int(np.argmax(np.where(np.isfinite(relative), relative, np.inf)))
    if not relative[worst] <= TOLERANCE:
        raise OnnxDiffersError(
            f"{file}: {outputs[worst]} differs from torch by {relative[worst]:.1e} of its scale; "
            f"{TOLERANCE:.0e} is allowed",
            where="ONNX export",
            remedy="report it with the preset and the versions of torch, onnx and onnxruntime",
        )
    return float(relative[worst])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints, warns and logs of its own insides; none of it is for the coordinator."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
