"""What stands against a release: the memorisation test, and the privacy that the study asked for.

Comes in: a finished run. Goes out: every objection at once, each an error with its code and remedy. It judges
by what the run's history, its journal and the sites' budgets show; a promise that nothing shows is not taken
for kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cardionets_core.audit import journal
from cardionets_core.config.study import Study
from cardionets_core.errors import CardioNetsError, CheckpointError, ConfigError, DataError, QuorumNotMetError
from cardionets_core.prediction.predictor import able_parts
from cardionets_core.release.refusals import MemorisationError, PrivacyUnmetError, StudyUnfinishedError
from cardionets_core.tasks import task_of
from cardionets_core.tasks.base import MeasureTask
from cardionets_core.tasks.drawing import DRAWING_OPTIONS
from cardionets_core.tasks.short_axis import LONG_AXIS, SHORT_AXIS, short_axis_name, view_of
from cardionets_core.training.private_plan import check_private
from server.release.run_folder import FinishedRun
from server.release.spent import Spent
from server.reply_journal import JOURNAL
from server.study_run import check_history

_GENERATOR = ("cmr_generator", "diffusion_head", "cmr_tokenizer", "tokenizer_discriminator")
GENERATOR = tuple(dict.fromkeys((*_GENERATOR, *map(short_axis_name, _GENERATOR))))
"""Modules that draw cines, or were trained to judge drawn ones."""
NEEDS_GENERATOR = ("fusion_head",)
"""Modules that are of no use without it."""
_PRIVATE = "such a model is not released: run the study again with the privacy that it asks for"
_OPENED = "secure-sum-opened"
_SHOWN = 5


def objections(
    run: FinishedRun, *, with_generator: bool, spent: Mapping[str, Spent]
) -> list[CardioNetsError]:
    """Everything that stands against a release; nothing for one that may be made.

    Args:
        run: whose study has completed.
        with_generator: the modules of ``GENERATOR`` are to be released too.
        spent: site to what its budget says of this study, where it handed that over.
    """
    found: list[CardioNetsError] = []
    try:
        check_history(run.study, run.result["rounds"])
    except QuorumNotMetError as error:
        found.append(StudyUnfinishedError(error.what, where=error.where, remedy=error.remedy))
    for view in (LONG_AXIS, SHORT_AXIS):
        generator = _GENERATOR[0] if view == LONG_AXIS else short_axis_name(_GENERATOR[0])
        if with_generator and generator in run.model.digests:
            found += _memorisation(run, view)
    if run.study.privacy.mechanism != "none":
        found += _private(run, spent)
    if run.study.secure_aggregation is not None:
        found += _masked(run)
    return found


def says_nothing(modules: Collection[str], folder: Path, *, preset: str) -> list[CardioNetsError]:
    """An objection to modules that tell nothing of an ECG; a drawn cine alone is no finding."""
    if set(able_parts(modules, preset=preset)) - {"cine"}:
        return []
    what = "these modules say nothing of an ECG: there is no ECG encoder with a head"
    remedy = "release a model whose study had a phase phenotype, probe, logistic or screening"
    return [CheckpointError(what, where=str(folder), remedy=remedy)]


def _memorisation(run: FinishedRun, view: str) -> list[CardioNetsError]:
    """The test of the very modules that are to be released, drawn as they are to be used."""
    phases = run.study.phases
    tested = [each for each in run.model.measured if each.task == "memorisation"]
    measured = [each for each in tested if view_of(phases[each.phase].options) == view]
    remedy = "add the phase memorisation to the study, or give --without-generator"
    whose = "the generator"
    if view == SHORT_AXIS:
        whose = "the generator of the short axis"
        remedy = remedy.replace("memorisation", f"memorisation with options: {{view: {view}}}")
    if not measured:
        return [_copies(f"{whose} was never tested for copies of training cases", remedy)]
    last = measured[-1]
    if not last.current:
        return [_copies(f"{whose} was tested for copies and trained on afterwards", remedy)]
    asked = {**DRAWING_OPTIONS, **phases[last.phase].options}
    used = run.model.drawing if view == LONG_AXIS else _drawn_as(run.study, view)
    other = [name for name in DRAWING_OPTIONS if asked[name] != used.get(name)]
    if other:
        what = f"the test of {whose} drew with another {', '.join(other)} than the model is used with"
        return [_copies(what, "give the phases generate and memorisation the same options of drawing")]
    if not last.metrics.get("conclusive"):
        what = f"the memorisation test of {whose} had too few cases to pass"
        return [_copies(what, "measure more people (measured_patients), or give --without-generator")]
    if last.metrics.get("passes") != 1.0:
        what = f"{whose} did not pass the memorisation test: it draws too near to training cases"
        return [_copies(what, "train a smaller or shorter one on more people, or give --without-generator")]
    return []


def _drawn_as(study: Study, view: str) -> dict[str, Any]:
    """How the last phase ``generate`` of a view drew what it measured."""
    asked = [
        phase.options for phase in study.phases if phase.task == "generate" and view_of(phase.options) == view
    ]
    return {**DRAWING_OPTIONS, **(asked[-1] if asked else {})}


def _copies(what: str, remedy: str) -> MemorisationError:
    return MemorisationError(what, where="memorisation test", remedy=remedy)


def _private(run: FinishedRun, spent: Mapping[str, Spent]) -> list[CardioNetsError]:
    """Noise that hides, in all phases and rounds, within the study's epsilon."""
    study = run.study
    found: list[CardioNetsError] = []
    if study.privacy.deterministic:
        found.append(_unmet("the noise followed from the study's public seed: it hides nothing", "study"))
    try:
        check_private(study, [task_of(phase, study) for phase in study.phases])
    except ConfigError as error:
        found.append(_unmet(f"a phase is not covered: {error.what}", error.where))
    if study.secure_aggregation is None:
        told = [_place(study, entry) for entry in run.result["rounds"] if _tells_of_people(entry)]
        if told:
            what = "losses or metrics of patients came without noise and without masks"
            found.append(_unmet(what, _some(told)))
    limit = study.privacy.epsilon
    for site, each in sorted(spent.items()):
        if not each.secret:
            found.append(_unmet(f"noise of {site} was not secret", "budget"))
        if limit is not None and each.epsilon > limit * (1 + 1e-6):
            what = f"{site} spent epsilon {each.epsilon:.3f}; the study allows {limit:g}"
            found.append(_unmet(what, "budget"))
    return found


def _tells_of_people(entry: Mapping[str, Any]) -> bool:
    rows = [row for row in entry.get("sites", []) if row.get("loss") is not None or row.get("metrics")]
    return bool(rows or entry.get("pooled") or (entry.get("test") or {}).get("pooled"))


def _masked(run: FinishedRun) -> list[CardioNetsError]:
    """Every round's sum was opened over enough sites of the roster, and the journal that says so is whole."""
    path = run.folder / JOURNAL
    try:
        if not path.is_file():
            raise DataError("there is no journal")
        journal.verify(path)
        opened = _opened(path, run.study)
    except (DataError, OSError) as error:
        what = f"nothing shows that the rounds were masked: {str(error).partition(chr(10))[0]}"
        return [_unmet(what, JOURNAL)]
    plain, alone = [], []
    for entry in run.result["rounds"]:
        key, place = (entry["phase"], entry["round"]), _place(run.study, entry)
        if not all((*key, part) in opened for part in _parts(run.study, entry)):
            plain.append(place)
        if (entry.get("test") or {}).get("external"):
            alone.append(place)
    found: list[CardioNetsError] = []
    if plain:
        found.append(_unmet("rounds went unmasked, or over too few sites", _some(plain)))
    if alone:
        found.append(_unmet("metrics of single sites came without masks", _some(alone)))
    return found


def _opened(path: Path, study: Study) -> set[tuple[int, int, str]]:
    """Phase, round and part of every sum that was opened over enough sites of the roster."""
    secure = study.secure_aggregation
    assert secure is not None  # asked only of such studies
    return {
        (body["phase"], body["round"], body["part"])
        for body in journal.bodies(path)
        if body.get("event") == _OPENED
        and body.get("study") == study.digest
        and len(set(str(body["sites"]).split(",")) & set(secure.roster)) >= secure.threshold
    }


def _parts(study: Study, entry: Mapping[str, Any]) -> list[str]:
    phase = study.phases[entry["phase"]]
    trains = not isinstance(task_of(phase, study), MeasureTask)
    tests = bool((entry.get("test") or {}).get("pooled"))
    return [*(["train"] if trains else []), *(["test"] if tests else [])]


def _place(study: Study, entry: Mapping[str, Any]) -> str:
    return f"phase {entry['phase'] + 1} ({study.phases[entry['phase']].task}), round {entry['round']}"


def _some(places: Sequence[str]) -> str:
    more = f"; {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return "; ".join(places[:_SHOWN]) + more


def _unmet(what: str, where: str) -> PrivacyUnmetError:
    return PrivacyUnmetError(what, where=where, remedy=_PRIVATE)
