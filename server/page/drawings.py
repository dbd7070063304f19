"""Sample cines that the study's model draws from the ECGs of invented hearts, beside those hearts' own cines.

Comes in: a checkpoint of a phase that learns to draw. Goes out: ``drawn.json`` of the run folder, with marked
pictures. Drawing never holds a study up for long: it is timed, and done less or not at all where it would.
No site's data is near it: the ECGs are those of ``samples``, whatever the study's privacy is.

Legend: H hearts, P width of an ECG's embedding, F frames, Y rows, X columns.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool3d

from cardionets_core.config.study import Study
from cardionets_core.data.synthetic_mark import mark_cine
from cardionets_core.data.synthetic_pictures import moving_gif, still_png
from cardionets_core.durable import write_json
from cardionets_core.models import build_module, get_preset
from cardionets_core.tasks import task_of
from cardionets_core.tasks.cases import conditions_of, row_seeds
from cardionets_core.tasks.drawing import draw_cines
from cardionets_core.tasks.generate import Generate
from cardionets_core.tasks.kept import Kept
from cardionets_core.tasks.shapes import shape_of
from cardionets_core.tasks.short_axis import LONG_AXIS, view_of
from cardionets_core.tasks.site_view import SiteView
from cardionets_core.training.seeds import derive_seed
from cardionets_core.training.tensors import load_tensors
from server.checkpoint import Checkpoint
from server.next_model import AVERAGE
from server.page.facts import DRAWN
from server.page.samples import Samples, read_samples

SCHEMA_VERSION = 1
SHARE = 0.1
"""Of the time that a round takes: where drawing all hearts would take more, fewer are drawn."""
LEAST_S = 5.0
"""Drawing that takes no longer than this is always done."""
END_S = 30.0
"""The same at the end of the phase."""
GUESS_S = {"nano": 1.0, "small": 7.0, "paper": 300.0}
"""Seconds of one heart on a busy core, by preset, until one has been timed here."""
SIDE_PX = 160
MOVING_FRAMES = 12
STILL_FRAMES = 4
FRAME_MS = 90
GREYS = 48


class Drawer:
    """Draws for one run folder.

    Args:
        study: the study.
        folder: of the run.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        self._study = study
        self._path = folder / DRAWN
        self._samples: Samples | None = None
        self._one_heart_s = GUESS_S.get(study.preset, 0.0)

    def after_round(self, checkpoint: Checkpoint, *, round_s: float) -> bool:
        """Draw, where this round's phase learns to and the round is one that is measured.

        Args:
            checkpoint: after the round.
            round_s: what the round took.

        Returns:
            Whether there is something new to show.
        """
        phase = self._study.phases[checkpoint.phase]
        ends = checkpoint.round >= phase.rounds
        every = self._study.evaluation.every_rounds
        if (
            phase.task != Generate.name
            or view_of(phase.options) != LONG_AXIS
            or not (ends or checkpoint.round % every == 0)
        ):
            return False
        self._samples = self._samples or read_samples()
        allowed = max(END_S if ends else LEAST_S, SHARE * round_s)
        if not ends and self._one_heart_s > allowed:
            return False
        hearts: list[dict[str, Any]] = []
        begin = time.monotonic()
        task = cast(Generate, task_of(phase, self._study))
        modules = _modules(checkpoint, (*task.trains, *task.reads), self._study.models)
        for place in range(len(self._samples.names)):
            # At the end of the phase one is drawn, however long it takes.
            if (place or not ends) and time.monotonic() - begin + self._one_heart_s > allowed:
                break
            before = time.monotonic()
            hearts.append(self._draw(task, modules, place))
            self._one_heart_s = time.monotonic() - before
        if not hearts:
            return False
        write_json(
            self._path,
            {
                "schema_version": SCHEMA_VERSION,
                "study_digest": self._study.digest,
                "model_digest": checkpoint.model_digest,
                "phase": checkpoint.phase,
                "round": checkpoint.round,
                "seconds": round(time.monotonic() - begin, 2),
                "of": len(self._samples.names),
                "hearts": hearts,
            },
            wait=False,
        )
        return True

    def _draw(self, task: Generate, modules: Mapping[str, nn.Module], place: int) -> dict[str, Any]:
        assert self._samples is not None
        study, samples = self._study, self._samples
        preset, device = get_preset(study.models), torch.device("cpu")
        view = SiteView(
            cohort=samples.cohort(), shape=shape_of(study.models), device=device, kept=Kept(cohort="")
        )
        seed = derive_seed(study.seed, "page", "drawings")
        with torch.no_grad():
            condition_1P = conditions_of(modules, view, np.array([place], dtype=np.int64))
            drawn_1FYX = draw_cines(
                modules,
                condition_1P,
                settings=task.drawing(preset),
                seeds=row_seeds(seed, [place], site="invented"),
                device=device,
            )
        own = torch.from_numpy(samples.cines_HFYX[place].astype(np.float32))[None]
        frames = min(preset.cine_frames, own.shape[1])
        side = (frames, preset.cine_pixels, preset.cine_pixels)
        own_FYX = adaptive_avg_pool3d(own, side)[0].numpy() / 127.5 - 1.0
        return {
            "name": samples.names[place],
            "words": samples.words[place],
            "real": _pictures(own_FYX),
            "drawn": _pictures(drawn_1FYX[0].cpu().numpy()),
        }


def _modules(checkpoint: Checkpoint, names: Sequence[str], preset: str) -> Mapping[str, nn.Module]:
    """The modules as the study would release them: the server's average, where it keeps one."""
    found = {}
    for name in names:
        kept = name + AVERAGE if name + AVERAGE in checkpoint.digests else name
        found[name] = build_module(name, preset, seed=0).eval().requires_grad_(False)
        load_tensors(found[name], checkpoint.tensors(kept))
    return found


def _pictures(cine_FYX: np.ndarray) -> dict[str, str]:
    """``gif`` and ``sheet`` (four frames in a square) as data URIs, every frame marked."""
    marked_FYX = mark_cine(cine_FYX, least_px=SIDE_PX).pixels
    moving = _spread(marked_FYX, MOVING_FRAMES)
    first, second, third, fourth = _spread(marked_FYX, STILL_FRAMES)
    sheet = np.vstack([np.hstack([first, second]), np.hstack([third, fourth])])
    return {
        "gif": _uri("gif", moving_gif(moving, frame_ms=FRAME_MS, greys=GREYS)),
        "sheet": _uri("png", still_png(sheet)),
    }


def _spread(frames_FYX: np.ndarray, most: int) -> np.ndarray:
    count = min(most, len(frames_FYX))
    return frames_FYX[[place * len(frames_FYX) // count for place in range(count)]]


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
