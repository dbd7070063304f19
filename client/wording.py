"""What hospital IT reads: words for flags, warnings and diseases, and results as plain lines.

Comes in: JSON-ready results. Goes out: text. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cardionets_core.data.records import LABEL_TITLES
from client.connection_wording import connection_lines
from client.inspection import Tally

FLAGS = {
    "arm-reversal": "lead I is upside down as if the arm electrodes were swapped; kept as it is",
    "calibration-cropped": "a calibration pulse at the end was cut off",
    "centre-by-motion": "no mask: the picture is centred on what moves",
    "file-unreadable": "a file of the study could not be read; the others are used",
    "gain-declared": "multiplied by the scale that the site's document declares",
    "slice-gap": "two neighbouring slices lie further apart than the others: one may be missing",
    "slice-incomplete": "a place of which no series is whole is left out",
    "slice-not-parallel": "slices that are not parallel to the others are left out",
    "view-stack": "several slices of a long-axis view; the middle one is used",
    "clipped": "a lead stands at its recorder's limit for a moment",
    "flat-lead": "one to five leads are flat; they count as zero",
    "lead-derived": "missing limb leads were computed from the others (Einthoven)",
    "lead-swap": "the limb leads contradict each other a little: noise, or two leads swapped",
    "nan-filled": "short gaps were filled by straight lines",
    "nan-lead": "a lead that is missing for more than a fifth of the time counts as zero",
    "padding-cropped": "zeros at both ends were cut off",
    "padding-trimmed": "zeros that fill up an array were cut off",
    "view-refused": "another view of the same study was refused",
    "series-repeated": "a series was repeated; the last whole one is used",
}
NOTES = {
    "age-implausible": "an age that is no number, or none that a person can have; taken as unknown",
    "age-over-89": 'an age that only says "over 89"; taken as unknown',
    "measurement-sentinel": 'a measurement of the machine that stands for "missing"; taken as missing',
    "time-differs": "two tables give different times for one recording; the list of recordings counts",
    "two-notes": "two notes for one recording",
    "row-repeated": "a row of a table stands twice",
    "phenotype-implausible": "a phenotype that no heart can have; taken as missing",
}
_CODES = {"cad": "I20 to I25", "cm": "I42, I43", "hf": "I50", "pc": "I30 to I32", "ph": "I27.0, I27.2",
          "rcm": "I42.5", "dcm": "I42.0", "hcm": "I42.1, I42.2"}  # fmt: skip
DISEASES = {name: (title, _CODES[name]) for name, title in LABEL_TITLES.items()}
"""Name and the standard codes; the last three are subtypes of cardiomyopathy."""
LEAD_DOUBTS = ("lead-swap", "arm-reversal")
"""Flags which, on most of a site's ECGs, tell of a fault of the export and not of people."""
VIEWS = {
    "4ch": "4-chamber cines",
    "2ch": "2-chamber cines",
    "3ch": "3-chamber cines",
    "sax": "short-axis cines",
}
NO_CACHE, NOT_PERMITTED = "cache-missing", "phase-not-permitted"
"""Codes that are told of phases."""
PAIRS = "pairs are ECGs with a 4-chamber cine of the same visit: no phase uses another view yet"


def flag_words(flag: str) -> str:
    """A flag in words; one that has none yet is told by its name."""
    return FLAGS.get(flag, flag.replace("-", " "))


def disease_title(disease: str, codes: str | None = None) -> str:
    """A disease or subtype with its codes.

    Args:
        disease: short name, of ``LABELS``.
        codes: the site's own; empty where no codes count; None for the standard ones.
    """
    name, standard = DISEASES[disease]
    told = standard if codes is None else codes
    return f"{name} ({told})" if told else name


def lead_doubt_words(flag: str, *, flagged: int, used: int) -> str:
    """That most ECGs of a site bear a flag of ``LEAD_DOUBTS``."""
    return (
        f"{flagged:,} of {used:,} ECGs that are used are flagged {flag} ({flag_words(flag)}): so many are no "
        "single slips. Compare the names of the leads in one file with what its recorder prints, and mend "
        "the export, or the order of the leads in site.yaml."
    )


def warning_words(warnings: Mapping[str, int]) -> list[str]:
    """The manifest's warnings as sentences; those that have no words yet are told by their names."""
    left = {name: count for name, count in sorted(warnings.items()) if count}
    told = []
    if pairs := left.pop("near-duplicates", 0):
        people = left.pop("near-duplicate-patients", 0)
        leaking = left.pop("near-duplicates-across-splits", 0)
        plural = "" if pairs == 1 else "s"
        told.append(
            f"Nearly equal ECGs under different patients: {pairs:,} pair{plural}, {people:,} patients, "
            f"{leaking:,} across two splits, where tests look better than they are. One person with two "
            "identifiers, or one file copied: look whether two of your identifiers mean one person."
        )
    return told + [f"{name.replace('-', ' ')}: {count:,}." for name, count in left.items()]


def note_words(note: str) -> str:
    """A doubt about a table in words; one that has none yet is told by its name."""
    return NOTES.get(note, note.replace("-", " "))


def inspection_lines(found: dict[str, Any]) -> Iterator[str]:
    """One recording of ``inspect``."""
    what = found.get("title") or "unknown"
    verdict = found["verdict"] if found.get("views") else _verdict(found)  # each view tells its own reason
    yield f"{found['argument']}.{found['record']}  {what}: {verdict}"
    if found.get("rate_hz"):
        yield (
            f"      {len(found['leads'])} leads, {found['rate_hz']:g} Hz, {found['samples']:,} samples, "
            f"{found['seconds']:g} s, {found['missing_samples']:,} missing samples"
        )
        if found["leads_derived"]:
            yield f"      computed from the other limb leads: {', '.join(found['leads_derived'])}"
        yield "      lead   peak mV    rms mV"
        for lead, size in found["lead_mv"].items():
            yield f"      {lead:5} {_number(size['peak']):>8}  {_number(size['rms']):>8}"
    for view in found.get("views", []):
        yield from _view_lines(view)
    for flag in found["flags"]:
        yield f"      {flag}: {flag_words(flag)}"


def _view_lines(view: dict[str, Any]) -> Iterator[str]:
    rows_mm, columns_mm = view["spacing_mm"]
    slices = f"{view['slices']} slice" + ("" if view["slices"] == 1 else "s")
    gap = f" every {view['slice_spacing_mm']:g} mm" if view["slice_spacing_mm"] else ""
    pace = f", {view['frame_ms']:g} ms a frame" if view["frame_ms"] else ", time between frames not said"
    yield (
        f"      {view['view']}: {view['frames']} frames of {view['rows']} x {view['columns']} pixels, "
        f"{_number(rows_mm)} x {_number(columns_mm)} mm, {slices}{gap}{pace}: {_verdict(view)}"
    )
    if view["ed_frame"] is not None and view["es_frame"] is not None:
        source = {"given": "as the file says", "heuristic": "found in the pictures"}
        told = source.get(view["phase_source"], view["phase_source"])
        yield (
            f"        end-diastole in frame {view['ed_frame']}, end-systole in frame {view['es_frame']}, "
            f"counted from 1; {told}"
        )
    else:
        yield "        end-diastole and end-systole unknown"


def _verdict(found: dict[str, Any]) -> str:
    if found["verdict"] != "refused":
        return {"accepted": "accepted", "flagged": "accepted, with flags"}[found["verdict"]]
    detail = f" ({found['detail']})" if found["detail"] else ""
    return f"refused, {found['reason']}: {found['sentence']}{detail}"


def tally_lines(tally: Tally) -> Iterator[str]:
    """The sums of ``inspect``."""
    verdicts = tally.verdicts
    told = (
        f"{verdicts.total():,} recordings: {verdicts['accepted']:,} accepted, {verdicts['flagged']:,} "
        f"accepted with flags, {verdicts['refused']:,} refused"
    )
    yield told + (f" ({_counts(tally.reasons)})" if tally.reasons else "")
    if tally.unrecognised:
        yield f"unrecognised: {tally.unrecognised:,} files that no reader knows"


def preview_lines(found: dict[str, Any]) -> Iterator[str]:
    """The result of ``prepare --dry-run``."""
    yield f"{found['listed']:,} recordings of {found['patients']:,} patients are listed"
    yield f"to read: {found['new']:,} new, {found['changed']:,} changed"
    yield f"unchanged: {found['unchanged']:,}; no longer listed, will be removed: {found['gone']:,}"
    yield f"left out while listing: {_counts(found['left_out'])}"
    if found["again"]:
        yield f"everything is read again: {found['again']}"


def check_lines(found: dict[str, Any]) -> Iterator[str]:
    """The result of ``check``."""
    yield from _machine_lines(found)
    if "connection" in found:
        yield from connection_lines(found["connection"])
    if "listing" in found:
        listing = found["listing"]
        yield (
            f"listing    {listing['recordings']['ecg']:,} ECGs and {listing['recordings']['cine']:,} cines "
            f"of {listing['patients']:,} patients"
        )
        for what in ("left_out", "notes"):
            if listing[what]:
                yield f"           {what.replace('_', ' ')}: {_counts(listing[what])}"
    if "sample" in found:
        sample = found["sample"]
        refused = _counts(sample["refused"])
        yield f"sample     {sample['accepted']} of {sample['read']} accepted; left out: {refused}"
        if sample["flags"]:
            yield f"           flags: {_counts(sample['flags'])}"
            for flag in LEAD_DOUBTS:
                if flag in sample["flags"]:
                    yield f"           {flag}: {flag_words(flag)}"
    if "splits" in found:
        yield from _split_lines(found["splits"])
    yield from _phase_lines(found["phases"])
    for notice in found["notices"]:
        yield f"notice: {notice['what']}" + (f"\n  to do: {notice['remedy']}" if notice["remedy"] else "")
    for problem in found["problems"]:
        yield f"problem [{problem['code']}]: {problem['what']}"
        if problem["where"]:
            yield f"  where: {problem['where']}"
        if problem["remedy"]:
            yield f"  to do: {problem['remedy']}"
    number = len(found["problems"])
    yield f"{number} problem(s)" if number else "no problems"


def _phase_lines(phases: dict[str, str]) -> Iterator[str]:
    permitted = [name for name, state in phases.items() if state != NOT_PERMITTED]
    if permitted and all(phases[name] == NO_CACHE for name in permitted):
        yield "phases     not known yet: there is no cache; prepare makes it"
        yield f"           permitted by the policy: {', '.join(permitted)}"
        return
    for name, state in phases.items():
        yield f"phase {name:12} {state}"


def _split_lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"splits     from the {found['from']}"
    about = "expected, about " if "expected" in found["from"] else ""
    # A listing knows no view yet: all its cines are counted.
    names = {"cines": VIEWS["4ch"]} if found["from"] == "cache" else {}
    for name, counts in found["splits"].items():
        told = {names.get(what, what.replace("_", " ")): n for what, n in counts.items() if what != "views"}
        told |= {VIEWS[view]: n for view, n in counts.get("views", {}).items()}
        yield f"           {name:11}{about}" + ", ".join(f"{count:,} {what}" for what, count in told.items())


def _machine_lines(found: dict[str, Any]) -> Iterator[str]:
    if not found["site"]:
        return
    yield f"site       {found['site']}"
    folders, device, memory = found["folders"], found["device"], found["memory"]
    yield (
        f"folders    {folders['sources_readable']} of {folders['sources']} source paths readable; "
        f"key {folders['key']}"
    )
    gpus = ", ".join(f"{gpu['name']} ({gpu['memory_bytes'] / 1e9:.0f} GB)" for gpu in device["gpus"])
    yield (
        f"device     asked {device['asked']}, used {device.get('used', 'none')}; "
        f"{device['cpu_cores']} cores, GPUs: {gpus or 'none'}; CUDA of torch: {device['cuda_of_torch']}"
    )
    yield (
        f"memory     {memory['total_bytes'] / 1e9:.1f} GB, {memory['available_bytes'] / 1e9:.1f} GB free; "
        f"prepare takes about {memory['prepare_estimate_bytes'] / 1e9:.1f} GB"
    )
    if "disk" in found:
        disk = found["disk"]
        yield (
            f"disk       {disk['free_bytes'] / 1e9:.1f} GB free for the cache; still needed: about "
            f"{disk['cache_estimate_bytes'] / 1e9:.2f} GB"
        )
    required = found["libraries"]["required"]
    yield f"libraries  cardionets {found['libraries']['cardionets']}, {len(required)} libraries compared"
    yield f"clock      {found['clock']['utc']}, synchronised: {found['clock']['synchronised']}"


def prepare_lines(found: dict[str, Any]) -> Iterator[str]:
    """The result of ``prepare``."""
    splits = {split: found[split] for split in ("train", "validation", "test")}
    columns = {"patients": "patients", "recordings": "ECGs", "cines": VIEWS["4ch"]}
    columns |= {view: VIEWS[view] for view in splits["train"]["views"]}
    columns |= {"pairs": "pairs", "phenotype_rows": "phenotype rows"}
    yield f"{'split':10}" + "".join(f"  {title:>14}" for title in columns.values())
    for split, counts in splits.items():
        every = counts | counts["views"]
        yield f"{split:10}" + "".join(
            f"  {every[name]:>{max(14, len(title))},}" for name, title in columns.items()
        )
    yield PAIRS
    for kind, counts in found["found"].items():
        used = f"{counts['accepted']:,} of {counts['listed']:,} used"
        yield f"{kind}: {used}, {counts['flagged']:,} of these with a flag"
    yield f"refusals: {_counts(found['refusals'])}"
    yield f"flags: {_counts(found.get('flags', {}))}"
    for warning in found.get("warnings", []):
        yield f"warning: {warning}"
    if "report" in found:
        yield f"report: {found['report']}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"
