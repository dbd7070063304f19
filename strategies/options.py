"""The options of a strategy, read strictly: an unknown, missing, ill-typed or out-of-range one is refused.

Comes in: the study's ``aggregation.options``. Goes out: typed values. It knows no strategy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from cardionets_core.errors import ConfigError

Scalar = bool | int | float | str
WHERE = "study: aggregation.options"


class Options:
    """Checked options of one strategy.

    Args:
        strategy: its name, for the refusals.
        given: the study's options.
        defaults: every option that may be left out, with its default.
        required: options that have no default.

    Raises:
        ConfigError: an option is unknown or missing; the remedy lists those that there are.
    """

    def __init__(
        self,
        strategy: str,
        given: Mapping[str, Scalar],
        *,
        defaults: Mapping[str, Scalar],
        required: Collection[str] = (),
    ) -> None:
        self._strategy = strategy
        known = sorted({*defaults, *required})
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ConfigError(
                f"the strategy {strategy} has no option {', '.join(unknown)}",
                where=WHERE,
                remedy=f"it takes: {', '.join(known) or 'none'}",
            )
        missing = sorted(set(required) - set(given))
        if missing:
            raise ConfigError(
                f"the strategy {strategy} needs the option {', '.join(missing)}",
                where=WHERE,
                remedy=f"it takes: {', '.join(known)}; see docs/strategies.md",
            )
        self.values: dict[str, Scalar] = {**defaults, **given}

    def number(
        self,
        name: str,
        *,
        above: float | None = None,
        at_least: float | None = None,
        below: float | None = None,
    ) -> float:
        """A finite number within its bounds.

        Raises:
            ConfigError: it is not one.
        """
        value = self.values[name]
        bounds = [
            *([f"above {above:g}"] if above is not None else []),
            *([f"at least {at_least:g}"] if at_least is not None else []),
            *([f"below {below:g}"] if below is not None else []),
        ]
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if fits:
            number = float(value)
            fits = (
                (above is None or number > above)
                and (at_least is None or number >= at_least)
                and (below is None or number < below)
            )
        if not fits:
            raise self._refused(name, f"a number {' and '.join(bounds)}".rstrip())
        return float(value)

    def count(self, name: str, *, at_least: int) -> int:
        """A whole number; raises as ``number`` does."""
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            raise self._refused(name, f"a whole number of at least {at_least}")
        return value

    def flag(self, name: str) -> bool:
        """True or false; raises as ``number`` does."""
        value = self.values[name]
        if not isinstance(value, bool):
            raise self._refused(name, "true or false")
        return value

    def word(self, name: str, choices: Collection[str]) -> str:
        """One of some words; raises as ``number`` does."""
        value = self.values[name]
        if not isinstance(value, str) or value not in choices:
            raise self._refused(name, f"one of {', '.join(sorted(choices))}")
        return value

    def _refused(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(
            f"{name} of the strategy {self._strategy} is {self.values[name]!r}",
            where=f"{WHERE}: {name}",
            remedy=f"it is {wanted}",
        )
