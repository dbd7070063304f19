"""The studies by which the cost of differential privacy is measured, with the settings that were tried.

Comes in: epsilon (None for training without noise), seed, and what a curve is about. Goes out: a study that
the sites run as any other. Two ways: ``head`` begins with an encoder that was made on other people's ECGs and
trains the screening head alone, 520 numbers; ``whole`` trains encoder, decoder and head from nothing, 120,000
numbers. All epsilons of a curve have the same steps, rate and clip, so that only the noise differs; without
privacy nothing is clipped.

A step of many patients is better than many steps: noise falls with the batch, and its cost grows with the
steps. The clip lies below the median norm of a patient's gradient (1.4 for the head, 2 to 5 for all weights):
noise counts for more than what is clipped. Tried were rates of .5 to 8, clips of .1 to .5, batches of 32 to
96 and 10 to 30 steps at ``demo``, and batches of 256 and 512 at large hospitals: what stands here did about
best over all epsilons. How common the diseases are is told from other people too: at a small site, a count
under noise is often one that its gate lets nobody see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cardionets_core.config.study import Study

DELTA = 1e-5
ENCODER, PRIOR = "ecg_encoder", "screening_prior"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a curve trains.

    Attributes:
        batch_size: expected patients of a step.
        rounds: of the head's phase.
        local_steps: of a round.
        lr: of SGD for the head; of Adam where the encoder is trained too.
        clip_norm: of a patient's gradient.
        pretraining: rounds of ``ecg_mae`` at the sites before; 0 begins from a given encoder.
    """

    batch_size: int
    rounds: int
    local_steps: int
    lr: float
    clip_norm: float
    pretraining: int = 0


SMALL_HEAD = Recipe(batch_size=64, rounds=10, local_steps=2, lr=4.0, clip_norm=0.5)
LARGE_HEAD = Recipe(batch_size=256, rounds=10, local_steps=3, lr=8.0, clip_norm=0.5)
WHOLE = Recipe(batch_size=48, rounds=15, local_steps=4, lr=2e-3, clip_norm=0.5, pretraining=15)


def private_study(recipe: Recipe, *, epsilon: float | None, seed: int, given: Mapping[str, str]) -> Study:
    """A study of one curve.

    Args:
        recipe: of the curve.
        epsilon: of the whole study at each site; None trains without noise and clip.
        seed: of the model, the batches and the noise.
        given: module to digest, of ``pretraining_study``; the encoder where the recipe does not train it.
    """
    phases: list[dict[str, Any]] = []
    options: dict[str, Any] = {"bootstrap_replicates": 1, "windows": "mean"}
    optimiser: dict[str, Any] = {"name": "sgd", "lr": recipe.lr, "schedule": "constant", "weight_decay": 0.0}
    if recipe.pretraining:
        options = {"bootstrap_replicates": 1, "train_encoder": True}
        optimiser = {"name": "adam", "lr": recipe.lr, "weight_decay": 0.0, "warmup": 10, "state": "persist"}
        phases.append(
            {
                "task": "ecg_mae",
                "rounds": recipe.pretraining,
                "local_steps": recipe.local_steps,
                "batch_size": recipe.batch_size,
                "optimiser": optimiser | {"lr": 2.0 * recipe.lr},
                "options": {"mask_share": 0.5},
            }
        )
    phases.append(
        {
            "task": "screening",
            "rounds": recipe.rounds,
            "local_steps": recipe.local_steps,
            "batch_size": recipe.batch_size,
            "optimiser": optimiser,
            "options": options,
        }
    )
    content: dict[str, Any] = {
        "name": "utility",
        "seed": seed,
        "sites": {"minimum": 2, "deadline_s": 3600},
        "evaluation": {"every_rounds": 1000},
        "phases": phases,
        "initial": {
            name: digest for name, digest in given.items() if not (recipe.pretraining and name == ENCODER)
        },
    }
    if epsilon is not None:
        # Made hospitals: noise that repeats hides nobody.
        content["privacy"] = {
            "mechanism": "dp_sgd",
            "epsilon": epsilon,
            "delta": DELTA,
            "clip_norm": recipe.clip_norm,
            "deterministic": True,
        }
    return Study.model_validate(content)


def pretraining_study(*, rounds: int = 8) -> Study:
    """The given encoder and prevalences, from one hospital of other people, without privacy."""
    optimiser = {"lr": 4e-3, "warmup": 40, "betas": [0.9, 0.95], "state": "persist"}
    phase = {
        "task": "ecg_mae",
        "rounds": rounds,
        "local_steps": 200,
        "batch_size": 16,
        "optimiser": optimiser,
        "options": {"mask_share": 0.5},
    }
    return Study.model_validate(
        {
            "name": "pretraining",
            "seed": 7,
            "sites": {"minimum": 1, "deadline_s": 3600},
            "evaluation": {"every_rounds": 1000},
            "phases": [phase, {"task": "prevalence", "rounds": 1}],
        }
    )
