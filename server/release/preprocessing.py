"""``preprocessing.json``: all that one needs to run the ONNX files without our code.

Comes in: an opened model and the columns of its outputs. Goes out: JSON-ready numbers and sentences. Every
number is the constant that the library itself computes with; none is typed again.
"""

from __future__ import annotations

from typing import Any

from cardionets_core.data.amplitude import AMPLITUDE_MV
from cardionets_core.data.leads import LIMB_OF_I_AND_II
from cardionets_core.data.pack import ECG_COUNTS_PER_MV
from cardionets_core.data.quality import (
    FLAT_MV,
    MAXIMUM_NAN_SHARE,
    MAXIMUM_SECONDS,
    MINIMUM_SECONDS,
    PADDING_SECONDS,
    REFUSED_FLAT_LEADS,
    REFUSED_NAN_LEADS,
)
from cardionets_core.data.records import LABEL_TITLES, LEADS
from cardionets_core.data.signal import (
    EDGE_SAMPLES,
    HIGH_PASS_HZ,
    LOW_PASS_HZ,
    MINIMUM_RATE_HZ,
    ORDER,
    TARGET_RATE_HZ,
    filter_sections,
)
from cardionets_core.data.windows import EVALUATION_WINDOWS, evaluation_starts
from cardionets_core.models.presets import Preset
from server.release.onnx_export import HEADS_FILE, WINDOW_FILE, WINDOW_INPUT
from server.release.onnx_model import FEATURE, PHENOTYPE, PROBABILITY, SUBTYPE, Outputs

SCHEMA_VERSION = 1


def preprocessing_of(preset: Preset, outputs: Outputs) -> dict[str, Any]:
    """Steps in their order, and what goes in and comes out of the ONNX files."""
    return {
        "schema_version": SCHEMA_VERSION,
        "signal": _signal(),
        "refused": _refused(),
        "steps": [_leads(), _mend(), _resample(), _filter(), _round(), *_cut(preset)],
        "onnx": _onnx(preset, outputs),
        "recipe": [
            f"cut the windows of a recording and standardise each; run onnx/{WINDOW_FILE} on all of them "
            f"together and keep {FEATURE}",
            f"take the mean of {FEATURE} over the windows, each window counted once",
            f"run onnx/{HEADS_FILE} on that mean: these are the predictions",
            f"the other outputs of {WINDOW_FILE} are those of a single window, and their mean is not the "
            "prediction of a recording",
        ],
    }


def _signal() -> dict[str, Any]:
    return {
        "leads": list(LEADS),
        "unit": "mV",
        "rate_hz": TARGET_RATE_HZ,
        "shape": "[leads, samples]",
        "kind": "resting 12-lead ECG",
    }


def _refused() -> dict[str, Any]:
    return {
        "minimum_seconds": MINIMUM_SECONDS,
        "maximum_seconds": MAXIMUM_SECONDS,
        "minimum_rate_hz": MINIMUM_RATE_HZ,
        "flat_leads_from": REFUSED_FLAT_LEADS,
        "flat_below_peak_to_peak_mv": FLAT_MV,
        "missing_leads_from": REFUSED_NAN_LEADS,
        "median_peak_to_peak_mv": list(AMPLITUDE_MV),
        "what": "recordings that predict refuses; the model was neither trained nor measured on such",
    }


def _leads() -> dict[str, Any]:
    return {
        "step": "leads",
        "order": list(LEADS),
        "missing_limb_leads": {lead: list(shares) for lead, shares in LIMB_OF_I_AND_II.items()},
        "what": "rows in this order; a missing limb lead is its shares of I and II",
    }


def _mend() -> dict[str, Any]:
    return {
        "step": "mend",
        "padding_seconds": PADDING_SECONDS,
        "missing_share": MAXIMUM_NAN_SHARE,
        "flat_below_peak_to_peak_mv": FLAT_MV,
        "what": "cut zeros that all leads share at either end for padding_seconds; fill missing samples "
        "of a lead by straight lines, and set a lead to 0 that misses more than the share, or is flat",
    }


def _resample() -> dict[str, Any]:
    return {
        "step": "resample",
        "rate_hz": TARGET_RATE_HZ,
        "method": "scipy.signal.resample",
        "what": "of the whole recording, to int(samples * rate_hz / rate) samples; nothing where the rate is "
        "right already",
    }


def _filter() -> dict[str, Any]:
    high_pass, low_pass = filter_sections()
    return {
        "step": "filter",
        "method": "scipy.signal.sosfiltfilt",
        "order": ORDER,
        "high_pass_hz": HIGH_PASS_HZ,
        "low_pass_hz": LOW_PASS_HZ,
        "edge_samples": EDGE_SAMPLES,
        "sections": [
            {"name": "high-pass", "sos": high_pass.tolist()},
            {"name": "low-pass", "sos": low_pass.tolist()},
        ],
        "what": "Butterworth, forwards and backwards over the whole recording, one section list after the "
        "other; the edges are extended by an odd reflection of edge_samples",
    }


def _round() -> dict[str, Any]:
    return {
        "step": "round",
        "counts_per_mv": ECG_COUNTS_PER_MV,
        "what": "to whole counts, half to even, within int16",
    }


def _cut(preset: Preset) -> list[dict[str, Any]]:
    """From a whole recording to what the encoder takes."""
    if preset.parts.ecg_is_image:
        return [_windows(preset), _double(preset), _scale()]
    return [_windows(preset), _standardise()]


def _windows(preset: Preset) -> dict[str, Any]:
    samples = preset.stored_samples
    example = 10 * int(TARGET_RATE_HZ)
    return {
        "step": "windows",
        "samples": samples,
        "windows": EVALUATION_WINDOWS,
        "patch_samples": preset.stored_patch,
        "example": {"recording_samples": example, "starts": list(evaluation_starts(example, samples))}
        if example >= samples
        else None,
        "what": "with last = recording - samples the starts are 0, last // 2 and last, without repeats; a "
        "recording shorter than a window is one window of whole patches from its start",
    }


def _standardise() -> dict[str, Any]:
    return {
        "step": "standardise",
        "what": "each window by the mean and the SD (divided by the count) over all its leads and samples "
        "together; a constant window becomes zeros; float32",
    }


def _double(preset: Preset) -> dict[str, Any]:
    return {
        "step": "double",
        "rate_hz": preset.ecg_rate_hz,
        "method": "scipy.signal.resample",
        "what": "of the whole recording, to twice its samples, before it is cut: starts and samples of the "
        "windows count twice as many",
    }


def _scale() -> dict[str, Any]:
    return {
        "step": "scale",
        "what": "each lead of a window by its own least and greatest value to -1 and 1; a lead that does not "
        "vary in the window before it is doubled becomes zeros; float32",
    }


def _onnx(preset: Preset, outputs: Outputs) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if outputs.phenotypes:
        columns[PHENOTYPE] = [
            {"field": each.field, "name": each.name, "title": each.title, "unit": each.unit}
            for each in outputs.phenotypes
        ]
    if outputs.diseases:
        columns[PROBABILITY] = [{"name": name, "title": LABEL_TITLES[name]} for name in outputs.diseases]
    if outputs.subtypes:
        columns[SUBTYPE] = [{"name": name, "title": LABEL_TITLES[name]} for name in outputs.subtypes]
    return {
        "files": {
            WINDOW_FILE: {
                "input": {WINDOW_INPUT: ["batch", len(LEADS), preset.ecg_samples]},
                "outputs": [FEATURE, *outputs.names],
            },
            HEADS_FILE: {
                "input": {FEATURE: ["batch", preset.ecg_encoder.width]},
                "outputs": outputs.names,
            },
        },
        "dtype": "float32",
        "columns": columns,
        "what": "phenotypes in the units of their columns; probabilities after calibration, at the study's "
        "prevalence; subtypes are shares given a cardiomyopathy",
    }
