"""The quality report of a prepared site: ``report/quality.json`` and ``report/quality.html`` in its cache.

Comes in: the site's document and its cache. Goes out: two files that only this account may read; they lie in
the cache, since they stand for its content, and go with it. Examples of what was refused are read anew from
the hospital's files; nothing of a person but the picture itself is kept.
"""

from __future__ import annotations

import datetime
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cache import read_manifest, record_table, summary
from cardionets_core.data.cohort import ECG_RATE_HZ, Cohort
from cardionets_core.data.examples import refused_examples
from cardionets_core.data.records import VIEWS, CineStack, EcgRecord, Read
from cardionets_core.errors import REFUSAL_REASONS
from client.private_file import write_private
from client.report.content import Table, declared_codes, histograms_of, report_content
from client.report.page import PAGE, Example, Group, render_page
from client.report.pictures import data_uri, even_frames, frame_png, raw_frames, strip_svg
from client.report.strips import BOX_MV, Strip, lay_out

SCHEMA_VERSION = 1
"""Of what ``prepare`` prints."""
NUMBERS = "quality.json"
PER_REASON = 2
ACCEPTED = 2

Progress = Callable[[str, int, int], None]


def report_folder(config: SiteConfig) -> Path:
    """Where a site's report lies."""
    return config.folders.cache / "report"


def has_report(config: SiteConfig) -> bool:
    """Whether the present cache has its report; whoever changes the cache removes the report first."""
    return all((report_folder(config) / name).is_file() for name in (NUMBERS, PAGE))


def write_report(config: SiteConfig, cohort: Cohort, *, today: datetime.date | None = None) -> dict[str, Any]:
    """Write both files.

    Args:
        config: of the site.
        cohort: its opened cache.
        today: date on the page; default today.

    Returns:
        The content of ``quality.json``.
    """
    manifest = read_manifest(config)
    table = _table(config)
    histograms = histograms_of(table, cohort)
    content = report_content(
        cohort=cohort,
        table=table,
        histograms=histograms,
        refusals=manifest.refusals,
        warnings=manifest.warnings,
        notes=manifest.notes,
        codes=declared_codes(config.source),
    )
    page = render_page(
        content,
        made_on=(today or datetime.date.today()).isoformat(),
        histograms=histograms,
        accepted=_accepted(cohort),
        refused=_refused(config),
    )
    folder = report_folder(config)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / PAGE, page.encode())
    numbers = json.dumps(content, sort_keys=True, indent=1, allow_nan=False)
    write_private(folder / NUMBERS, f"{numbers}\n".encode())
    return content


def prepared_summary(
    config: SiteConfig, cohort: Cohort, *, progress: Progress | None = None
) -> dict[str, Any]:
    """What ``prepare`` prints: counts by split, reasons, flags, warnings. Writes a report that is absent."""
    if not has_report(config):
        if progress is not None:
            progress("report", 0, 1)
        write_report(config, cohort)
        if progress is not None:
            progress("report", 1, 1)
    report = report_folder(config)
    content = json.loads((report / NUMBERS).read_text(encoding="utf-8"))
    flags = {row["flag"]: row["count"] for row in content["flags"]}
    return {
        "schema_version": SCHEMA_VERSION,
        **summary(cohort),
        "found": content["recordings"],
        "flags": flags,
        "warnings": content["warnings"],
        "report": str(report / PAGE),
    }


def _table(config: SiteConfig) -> Table:
    return record_table(config).drop_columns(["pseudonym"]).to_pydict()


def _accepted(cohort: Cohort) -> list[Group]:
    """Two ECGs, and of two cines three frames each; from the middle of the cache, so not always the first."""
    groups = []
    records = np.unique(cohort.row_ecg[cohort.row_ecg >= 0])
    if len(records):
        strips = [lay_out(cohort.ecg_mv(int(record)), fs_hz=ECG_RATE_HZ) for record in _spread(records)]
        groups.append(_strips("ECG", "", strips))
    for view in VIEWS:
        rows = cohort.row_cine if view == "4ch" else cohort.row_views.get(view, np.zeros(0, dtype=np.int64))
        items = np.unique(rows[rows >= 0])
        if len(items):
            frames = [even_frames(np.asarray(cohort.cines[int(item)])) for item in _spread(items)]
            groups.append(_frames(f"cine, {view}", "", frames))
    return groups


def _refused(config: SiteConfig) -> list[Group]:
    """A group a reason, in the order of the reasons."""
    records: dict[str, list[Read]] = defaultdict(list)
    for example in refused_examples(config, per_reason=PER_REASON):
        if example.record is not None:
            records[example.reason].append(example.record)
    groups = []
    for reason, found in sorted(records.items()):
        strips = [_raw_strip(record) for record in found if isinstance(record, EcgRecord)]
        frames = [raw_frames(stack.pixels) for stack in _first_stacks(found)]
        sentence = REFUSAL_REASONS.get(reason, "")
        if strips:
            groups.append(_strips(reason, sentence, strips))
        if frames:
            groups.append(_frames(reason, sentence, frames))
    return groups


def _first_stacks(records: Iterable[Read]) -> list[CineStack]:
    return [record[0] for record in records if not isinstance(record, EcgRecord) and record]


def _raw_strip(record: EcgRecord) -> Strip:
    return lay_out(record.signal_mv, fs_hz=record.fs_hz, leads=record.leads)


def _strips(title: str, sentence: str, strips: list[Strip]) -> Group:
    examples = tuple(
        Example(
            caption=f"first {strip.seconds:g} s; {strip.scale}"
            + ("" if strip.box_mv == BOX_MV else f" (usual would be {BOX_MV:g} mV)"),
            svg=strip_svg(strip, label=f"12-lead ECG, {strip.scale}"),
        )
        for strip in strips
    )
    return Group(title=title, sentence=sentence, examples=examples)


def _frames(title: str, sentence: str, found: list[list[np.ndarray]]) -> Group:
    examples = tuple(
        Example(
            caption="three frames, a third of the heart beat apart",
            frames=tuple(data_uri(frame_png(frame)) for frame in frames),
        )
        for frames in found
    )
    return Group(title=title, sentence=sentence, examples=examples)


def _spread(items: np.ndarray) -> np.ndarray:
    """Up to two, a third and two thirds into the list."""
    return np.unique(items[[len(items) // 3, 2 * len(items) // 3]])[:ACCEPTED]
