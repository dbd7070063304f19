"""The study: what the coordinator asks for. It travels as JSON, with its SHA-256 digest, in every order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cardionets_core.config.generation import Parts, models_name, parts_of
from cardionets_core.config.patterns import PRESET_NAME, SHA256, SITE_NAME, STUDY_NAME
from cardionets_core.config.read import Document, parse_document, read_document
from cardionets_core.errors import ConfigError, OrderRefusedError
from cardionets_core.plain_json import parse_json

Scalar = bool | int | float | str
SiteName = Annotated[str, Field(pattern=SITE_NAME)]
PublicKeyLine = Annotated[str, Field(pattern=r"^ecdsa-sha2-nistp384 [A-Za-z0-9+/=]{100,300}$")]


class Sites(Document):
    """Which sites take part in a round, and how long the server waits for them."""

    minimum: int = Field(default=2, ge=1, description="fewest sites whose replies make a round")
    deadline_s: float = Field(default=3600.0, gt=0)
    per_round: int | None = Field(
        default=None, ge=1, description="how many of the sites that can serve train in a round, drawn by seed"
    )
    attempts: int = Field(
        default=2, ge=1, le=10, description="how often a round is tried before the study pauses"
    )

    @model_validator(mode="after")
    def _enough_are_drawn(self) -> Sites:
        if self.per_round is not None and self.per_round < self.minimum:
            raise ValueError("per_round is at least minimum")
        return self


class Optimiser(Document):
    """One optimiser and its schedule by global progress; see SCIENCE section 4."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float | None = Field(default=None, gt=0, description="absolute learning rate")
    blr: float | None = Field(default=None, gt=0, description="base rate: lr = blr * batch_size / 256")
    minimum_lr: float = Field(default=0.0, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = Field(default=0.0, ge=0, description="in the phase's local unit: epochs or steps")
    clip_norm: float | None = Field(default=None, gt=0)
    state: Literal["reset", "persist"] = Field(
        default="reset", description="whether a site's moments begin anew each round; they never travel"
    )

    @model_validator(mode="after")
    def _one_rate(self) -> Optimiser:
        if (self.lr is None) == (self.blr is None):
            raise ValueError("give exactly one of lr and blr")
        return self


def phase_title(task: str, options: Mapping[str, Scalar] | None) -> str:
    """What a phase is called: its task, and in brackets its view where that is not the 4-chamber one."""
    view = (options or {}).get("view", "4ch")
    return task if view == "4ch" else f"{task} ({view})"


class Phase(Document):
    """One stretch of the study: a task, trained for some rounds."""

    task: str
    rounds: int = Field(ge=1, le=100_000)
    local_epochs: float | None = Field(default=None, gt=0)
    local_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=64, ge=1)
    accumulate: int = Field(
        default=1,
        ge=1,
        le=4096,
        description="parts in which a batch passes the model",
    )
    optimiser: Optimiser | None = None
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="the server's moving average, a step; measured and kept instead"
    )
    options: dict[str, Scalar] = Field(default_factory=dict, description="options of the task's loss")

    @property
    def title(self) -> str:
        """The task, and in brackets the view where its option ``view`` is not the 4-chamber one."""
        return phase_title(self.task, self.options)

    @model_validator(mode="after")
    def _one_unit(self) -> Phase:
        if self.local_epochs is not None and self.local_steps is not None:
            raise ValueError("give only one of local_epochs and local_steps")
        if self.optimiser is not None and self.local_epochs is None and self.local_steps is None:
            raise ValueError("a trained phase needs local_epochs or local_steps")
        if self.accumulate > self.batch_size:
            raise ValueError("accumulate is at most batch_size")
        if self.ema_decay is not None and self.optimiser is None:
            raise ValueError("ema_decay belongs to a phase that is trained by steps")
        return self


class Aggregation(Document):
    """How the replies of a round become the next model."""

    strategy: str = "fedavg"
    options: dict[str, Scalar] = Field(default_factory=dict)


class Privacy(Document):
    """The privacy mechanism of the sites' training, for each patient of each site.

    With ``dp_sgd`` a site clips what each patient adds to a step and hides the sum under noise, so that the
    whole study spends at most ``epsilon`` at ``delta``; see docs/privacy.md.
    """

    mechanism: Literal["none", "dp_sgd"] = "none"
    epsilon: float | None = Field(
        default=None, gt=0, description="at most, of the whole study at each site; each site finds its noise"
    )
    noise_multiplier: float | None = Field(
        default=None, gt=0, description="in place of epsilon: the noise over clip_norm; epsilon follows"
    )
    delta: float = Field(default=1e-5, gt=0, le=1e-3)
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of a patient's gradient in a step")
    accountant: Literal["prv", "rdp"] = "prv"
    deterministic: bool = Field(
        default=False, description="for tests: noise of the study's public seed, which hides nothing"
    )

    @model_validator(mode="after")
    def _one_measure(self) -> Privacy:
        if self.mechanism == "dp_sgd" and (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("dp_sgd needs exactly one of epsilon and noise_multiplier")
        changed = [
            name
            for name, field in type(self).model_fields.items()
            if name != "mechanism" and getattr(self, name) != field.default
        ]
        if self.mechanism == "none" and changed:
            raise ValueError("without a mechanism there is nothing to set: give mechanism: dp_sgd")
        return self


class SecureAggregation(Document):
    """The server learns sums over at least ``threshold`` sites, and of no site by itself."""

    threshold: int = Field(ge=2, description="fewest sites whose sum is opened; more than half of the roster")
    roster: dict[SiteName, PublicKeyLine] = Field(
        default_factory=dict, description="the sites, each with its public key; see cardionets-server roster"
    )
    largest_update: float = Field(
        default=1.0,
        gt=0,
        le=1e6,
        description="largest change of a weight in a round; a larger one is refused",
    )
    largest_samples: int = Field(
        default=10_000, ge=1, le=2**28, description="most training rows of a site in a round"
    )
    largest_sum: float = Field(default=1e12, gt=0, le=1e18, description="largest magnitude of a site's sum")

    @model_validator(mode="after")
    def _more_than_half(self) -> SecureAggregation:
        # An empty roster is filled in before the study is sent; cardionets-sim does so by itself.
        if self.roster and not self.threshold <= len(self.roster) < 2 * self.threshold:
            raise ValueError(
                f"the roster has {len(self.roster)} sites; threshold is more than half of them, at most all"
            )
        return self


class Evaluation(Document):
    """When the sites measure the global model on their held-out patients."""

    every_rounds: int = Field(default=1, ge=1)
    trips: Literal["one", "two"] = Field(
        default="one",
        description="one: a round's order also asks for the metrics of the model that it brings",
    )


class Exchange(Document):
    """How module tensors cross the wire."""

    precision: Literal["fp32", "bf16", "int8"] = Field(
        default="fp32",
        description="of updates; bf16 and int8 lose bits, int8 carries its error into the next",
    )


class Checkpoints(Document):
    """Which checkpoints are kept beside those of the phases' ends."""

    keep_last: int = Field(default=2, ge=1, le=100)
    keep_best: bool = Field(default=True, description="of each phase, by its primary held-out metric")


class ReplyBounds(Document):
    """What the server accepts in a reply at most."""

    maximum_samples: int = Field(default=10_000_000, ge=1)
    maximum_update_norm: float | None = Field(default=None, gt=0, description="L2 norm of a module's change")


class ModelParts(Document):
    """Single parts of another generation than the study's; the names of the later one come first."""

    ecg_encoder: Literal["st-mem", "vit", "vit-film"] | None = Field(
        default=None,
        description="vit-film also takes age and sex: not results of the ECG alone",
    )
    cmr_encoder: Literal["vit", "swin"] | None = Field(
        default=None, description="swin: two towers, for the 4-chamber view and the short axis"
    )
    cmr_generator: Literal["mar", "diffusion"] | None = None


class Study(Document):
    """A whole study. Tasks, strategies and presets are names, resolved by the registries that own them."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=STUDY_NAME)
    seed: int = Field(default=0, ge=0, lt=2**31)
    preset: str = Field(default="nano", pattern=PRESET_NAME)
    generation: Literal["cardionets", "cardiacnets"] = Field(
        default="cardionets", description="of the method: the later one, or the earlier one"
    )
    parts: ModelParts = ModelParts()
    sites: Sites = Sites()
    phases: tuple[Phase, ...] = Field(min_length=1)
    aggregation: Aggregation = Aggregation()
    privacy: Privacy = Privacy()
    secure_aggregation: SecureAggregation | None = None
    evaluation: Evaluation = Evaluation()
    exchange: Exchange = Exchange()
    checkpoints: Checkpoints = Checkpoints()
    reply_bounds: ReplyBounds = ReplyBounds()
    initial: dict[str, Annotated[str, Field(pattern=SHA256)]] = Field(
        default_factory=dict, description="module to digest: weights to start from instead of random ones"
    )

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no blanks. Equal studies give equal text."""
        return json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False
        )

    @property
    def model_parts(self) -> Parts:
        """Which generation each part of the model is of."""
        chosen = self.parts.model_dump(exclude_none=True)
        return parts_of(self.generation, chosen)

    @property
    def models(self) -> str:
        """The preset with its parts, by the name that the models' registry knows, ``nano+swin`` for one."""
        return models_name(self.preset, self.model_parts)

    @property
    def exact_sums_leave(self) -> bool:
        """Whether sums leave a site without noise; of a private study only where they are masked."""
        return self.privacy.mechanism == "none" or self.secure_aggregation is not None

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def read_study(path: Path) -> Study:
    """Read ``study.yaml``.

    Raises:
        ConfigError: every fault of the document at once.
    """
    return read_document(Study, path)


def study_from_json(text: str, *, digest: str) -> Study:
    """Rebuild the study that came with an order, and check that it is the one that the digest names.

    Raises:
        OrderRefusedError: the text is not a study, or not that study.
    """
    try:
        content: Any = parse_json(text)
        if not isinstance(content, dict):
            raise ConfigError("not a mapping")
        study = parse_document(Study, content, where="order")
    except (ValueError, ConfigError) as error:
        raise OrderRefusedError("the order carries no readable study", where="order") from error
    if study.digest != digest:
        raise OrderRefusedError(
            "the order's study does not have the digest that the order names", where="order"
        )
    return study
