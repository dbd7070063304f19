"""Flower's own strategies in the place of ours: ``aggregate_train`` runs unchanged on stored replies.

Comes in: one module's replies, as Flower sees them: an ArrayRecord of one flat array and a MetricRecord with
``num-examples`` (and ``train_loss`` where the site measured one) a site. Goes out: the new module. A Flower
strategy lives through a study in memory; ours must survive a restart. So each round a new one is made, given
what it remembered from the last round's files, and asked; what it then remembers is written again. One that
remembers anything else is refused, since a resumed study would forget it. All replies of a module are in
memory at once, as Flower's strategies want them; ours of the same names are streamed.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cardionets_core.errors import ConfigError, QuorumNotMetError
from cardionets_core.training.local_rule import FIRST_LOSS
from strategies.options import WHERE, Scalar
from strategies.strategy import FIRST_ROUND, NOTHING, RoundFacts, StoredModule, Strategy, fsynced

ARRAY = "module"
CURRENT = "current_arrays"
NOT_OPTIONS = frozenset(
    {
        "self",
        "fraction_train",
        "fraction_evaluate",
        "min_train_nodes",
        "min_evaluate_nodes",
        "min_available_nodes",
        "weighted_by_key",
        "arrayrecord_key",
        "configrecord_key",
        "train_metrics_aggr_fn",
        "evaluate_metrics_aggr_fn",
        "selection_rule",
        "train_loss_key",
    }
)
"""Arguments of Flower's constructors that the study decides elsewhere, or that are no scalars."""


@dataclass(frozen=True, slots=True)
class _Content:
    """A reply as Flower's strategies look at it: a Message cannot be made outside of a Flower task."""

    content: Any

    def has_error(self) -> bool:
        """Stored replies are whole."""
        return False


class FlowerStrategy(Strategy):
    """One of Flower's strategies; see ``FLOWER_STRATEGIES``.

    Options: the scalar arguments of its constructor, under Flower's names and with Flower's defaults.
    """

    flower_class: ClassVar[str]

    def __init__(self, options: Mapping[str, Scalar]) -> None:
        known = self.parameters()
        self.defaults = {  # type: ignore[misc]
            name: value.default
            for name, value in known.items()
            if value.default is not inspect.Parameter.empty
        }
        self.required = frozenset(set(known) - set(self.defaults))  # type: ignore[misc]
        super().__init__(options)
        self._make()

    @classmethod
    def parameters(cls) -> dict[str, inspect.Parameter]:
        """The arguments of Flower's constructor that are options here."""
        found = inspect.signature(_class(cls.flower_class).__init__).parameters
        return {name: value for name, value in found.items() if name not in NOT_OPTIONS}

    def combine(
        self,
        replies: Sequence[StoredModule],
        *,
        current: Path,
        target: Path,
        before: Mapping[str, Path] = NOTHING,
        after: Mapping[str, Path] = NOTHING,
        facts: RoundFacts = FIRST_ROUND,
    ) -> None:
        """See ``Strategy.combine``."""
        from flwr.app import ArrayRecord, ConfigRecord

        made = self._make()
        fresh = {name: value for name, value in vars(made).items() if name not in self.state_names}
        for name, path in before.items():
            setattr(made, name, _as_flower_holds_it(name, np.fromfile(path, dtype="<f4")))
        # With no node to ask, Flower's configure_train notes the module that was sent and returns.
        made.fraction_train = 0.0
        made.configure_train(facts.number, ArrayRecord(_record(current)), ConfigRecord(), None)
        made.fraction_train = fresh["fraction_train"]
        arrays, _ = made.aggregate_train(facts.number, [_Content(_content(reply)) for reply in replies])
        if arrays is None:
            raise QuorumNotMetError(
                f"{self.name} made nothing of {len(replies)} site(s)",
                where="aggregation",
                remedy="ask more sites to take part, or let the study assume fewer malicious nodes",
            )
        self._check_nothing_else(made, fresh)
        size = replies[0].size
        _write(target, arrays[ARRAY].numpy(), size)
        for name in self.state_names:
            _write(after[name], _values(getattr(made, name), size), size)

    def _make(self) -> Any:
        try:
            return _class(self.flower_class)(**self.options.values)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"Flower refuses the options of {self.name}: {error}",
                where=WHERE,
                remedy=f"its options and defaults are those of flwr.serverapp.strategy.{self.flower_class}",
            ) from error

    def _check_nothing_else(self, made: Any, fresh: Mapping[str, Any]) -> None:
        """Refuse a strategy that holds, beside its named state, what it did not hold before."""
        changed = [
            name
            for name, value in vars(made).items()
            if name not in (*self.state_names, CURRENT) and not (name in fresh and _same(value, fresh[name]))
        ]
        if changed:
            raise ConfigError(
                f"{self.name} of this Flower keeps {', '.join(sorted(changed))} from round to round; "
                "a resumed study would forget it",
                where="study: aggregation.strategy",
                remedy="use the strategy of this house under the same name, without flower/",
            )


def _class(name: str) -> Any:
    import flwr.serverapp.strategy

    return getattr(flwr.serverapp.strategy, name)


def _record(path: Path) -> dict[str, Any]:
    from flwr.app import Array

    return {ARRAY: Array(np.fromfile(path, dtype="<f4").astype(np.float32))}


def _content(reply: StoredModule) -> Any:
    from flwr.app import ArrayRecord, MetricRecord, RecordDict

    metrics: dict[str, int | float] = {"num-examples": reply.samples}
    if FIRST_LOSS in reply.values:
        metrics["train_loss"] = float(reply.values[FIRST_LOSS])
    return RecordDict({"arrays": ArrayRecord(_record(reply.path)), "metrics": MetricRecord(metrics)})  # type: ignore[arg-type]


def _as_flower_holds_it(name: str, values: np.ndarray) -> Any:
    """FedAvgM holds a list of arrays, the adaptive ones a mapping."""
    return [values] if name == "momentum_vector" else {ARRAY: values}


def _values(held: Any, size: int) -> np.ndarray:
    if held is None:  # a momentum of zero is never made
        return np.zeros(size, dtype=np.float32)
    (values,) = held.values() if isinstance(held, Mapping) else held
    return np.asarray(values)


def _write(path: Path, values: np.ndarray, size: int) -> None:
    if values.size != size:
        raise ConfigError(
            f"Flower gave {values.size} values for {size}",
            where="study: aggregation.strategy",
            remedy="use the strategy of this house under the same name, without flower/",
        )
    with fsynced(path) as handle:
        handle.write(values.astype("<f4").tobytes())


def _same(value: Any, other: Any) -> bool:
    return value is other or (isinstance(value, bool | int | float | str) and value == other)


def _named(flower_class: str, *state_names: str) -> type[FlowerStrategy]:
    content = {
        "__doc__": f"Flower's {flower_class}, unchanged.",
        "name": f"flower/{flower_class.lower()}",
        "flower_class": flower_class,
        "state_names": state_names,
    }
    return type(f"Flower{flower_class}", (FlowerStrategy,), content)


FLOWER_STRATEGIES: tuple[type[FlowerStrategy], ...] = (
    _named("FedAvg"),
    _named("FedAvgM", "momentum_vector"),
    _named("FedProx"),
    _named("FedAdam", "m_t", "v_t"),
    _named("FedYogi", "m_t", "v_t"),
    _named("FedAdagrad", "m_t", "v_t"),
    _named("QFedAvg"),
    _named("FedMedian"),
    _named("FedTrimmedAvg"),
    _named("Krum"),
    _named("MultiKrum"),
    _named("Bulyan"),
)
"""Each with the attributes in which it holds what it remembers, laid out as the module."""
