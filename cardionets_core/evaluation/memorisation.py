"""Does the generator return its training cases? Asked before a release, in latent space (SCIENCE 5.4(5)).

Two questions, answered at each site by counts, which may be added:

1. Samples made from held-out ECGs: is the nearest real case as often a training case as one of an equal
   number of held-out cases? The sample's own person is not among the cases, for a good generator comes near
   the truth.
2. Samples made from training ECGs: are they closer to a training case than the duplicate threshold (1st
   percentile of the distances between a training case and its nearest other one) more often than real
   held-out cases are?

Some cases are nearest to many samples (hubs of high dimension), so that samples do not vote independently:
with plain binomial limits a generator without fault failed in up to 18 % of trials instead of 1 %
(independent Gaussian latents around a common mean, 1,024 values, 60 to 200 cases). The limits of question 1
are therefore those of the effective number of votes, ``votes^2 / sum of squared hits``, which is the number
of votes where no case is nearest twice; that failed in at most 1.5 %.

Legend: S samples, N cases, D values of a latent, V votes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, fisher_exact

LEVEL = 0.99
DUPLICATE_PERCENTILE = 1.0
# Below this many effective votes, or samples of question 2, passing says nothing.
MINIMUM_TRIALS = 20
BLOCK_ROWS = 256
SUM_NAMES: tuple[str, ...] = (
    "votes", "votes_training", "hits_squared",
    "samples", "sample_duplicates", "held_out_cases", "held_out_duplicates",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """One site's latents; at most one case and one sample of a person, any trailing shape.

    Attributes:
        training: real cases that the generator was trained on, [N, ...].
        held_out: real cases of other people, [N', ...].
        from_held_out: samples from the ECGs of ``held_out``, in its order, [N', ...].
        from_training: samples from the ECGs of training cases, in any number, [S, ...].
    """

    training: np.ndarray
    held_out: np.ndarray
    from_held_out: np.ndarray
    from_training: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorisationVerdict:
    """What the counts say.

    Attributes:
        training_share: share of samples from held-out ECGs whose nearest case is a training case; 0.5
            expected.
        lowest_share: least share that is within the binomial 99 % interval of 0.5.
        highest_share: greatest one.
        effective_votes: samples that count as independent.
        sample_duplicates: share of the samples from training ECGs below the duplicate threshold.
        held_out_duplicates: share of the real held-out cases below it.
        duplicates_p_value: of that or a greater excess of the samples by chance (Fisher's exact test,
            one-sided).
        conclusive: at least 20 effective votes, 20 samples and 20 held-out cases, without which nothing
            passes but faults that show are still named.
        nearest_passes: the share lies within its interval.
        duplicates_pass: the p value is at least 0.01.
        passes: all three.
    """

    training_share: float
    lowest_share: float
    highest_share: float
    effective_votes: int
    sample_duplicates: float
    held_out_duplicates: float
    duplicates_p_value: float
    conclusive: bool
    nearest_passes: bool
    duplicates_pass: bool
    passes: bool


def memorisation_sums(latents: Latents, *, seed: int) -> dict[str, np.ndarray]:
    """Counts of one site, named as ``SUM_NAMES``, float64 [1] each; zeros without enough cases.

    Distances are Euclidean over all values. Equal distances go to the training case.

    Args:
        latents: of the site.
        seed: draws which cases stand against each other where the two kinds are not equally many.

    Raises:
        ValueError: the latents differ in shape, or samples and held-out cases in number.
    """
    training, held_out = _flat(latents.training), _flat(latents.held_out)
    from_held_out, from_training = _flat(latents.from_held_out), _flat(latents.from_training)
    if len({values.shape[1] for values in (training, held_out, from_held_out, from_training)}) > 1:
        raise ValueError("latents of different sizes cannot be compared")
    if len(from_held_out) != len(held_out):
        raise ValueError("one sample is needed for each held-out case, in the same order")
    found = dict.fromkeys(SUM_NAMES, 0.0)
    found.update(_votes(training, held_out, samples=from_held_out, seed=seed))
    if len(training) > 1:
        threshold = duplicate_threshold(training)
        found["samples"] = float(len(from_training))
        found["sample_duplicates"] = float((nearest(from_training, training)[0] < threshold).sum())
        found["held_out_cases"] = float(len(held_out))
        found["held_out_duplicates"] = float((nearest(held_out, training)[0] < threshold).sum())
    return {name: np.array([found[name]]) for name in SUM_NAMES}


def duplicate_threshold(training_ND: np.ndarray) -> float:
    """1st percentile of the distances from each training case to its nearest other one; needs two cases."""
    distance, _ = nearest(training_ND, training_ND, own_N=np.arange(len(training_ND)))
    return float(np.percentile(distance, DUPLICATE_PERCENTILE))


def judge_memorisation(sums: Mapping[str, np.ndarray]) -> MemorisationVerdict:
    """The verdict on the counts of one site, or on added ones."""
    value = {name: float(sums[name][0]) for name in SUM_NAMES}
    votes = value["votes"]
    effective = int(votes**2 / value["hits_squared"]) if votes else 0
    share, low, high = float("nan"), float("nan"), float("nan")
    if effective:
        low, high = (float(end) / effective for end in binom.interval(LEVEL, effective, 0.5))
        share = value["votes_training"] / votes
    table = [
        [value["sample_duplicates"], value["samples"] - value["sample_duplicates"]],
        [value["held_out_duplicates"], value["held_out_cases"] - value["held_out_duplicates"]],
    ]
    p_value = float("nan")
    if value["samples"] and value["held_out_cases"]:
        p_value = float(fisher_exact(np.array(table, dtype=np.int64), alternative="greater").pvalue)
    conclusive = min(effective, value["samples"], value["held_out_cases"]) >= MINIMUM_TRIALS
    nearest_passes, duplicates_pass = low <= share <= high, p_value >= 1.0 - LEVEL
    return MemorisationVerdict(
        training_share=share,
        lowest_share=low,
        highest_share=high,
        effective_votes=effective,
        sample_duplicates=_share(value["sample_duplicates"], value["samples"]),
        held_out_duplicates=_share(value["held_out_duplicates"], value["held_out_cases"]),
        duplicates_p_value=p_value,
        conclusive=conclusive,
        nearest_passes=nearest_passes,
        duplicates_pass=duplicates_pass,
        passes=conclusive and nearest_passes and duplicates_pass,
    )


def nearest(
    query_SD: np.ndarray, case_ND: np.ndarray, *, own_N: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest case, float64 [S], and its index, int64 [S]; infinite and -1 without a case.

    Args:
        query_SD: queries.
        case_ND: cases.
        own_N: for each query the index of a case that is left out.
    """
    least_S = np.full(len(query_SD), np.inf)
    index_S = np.full(len(query_SD), -1, dtype=np.int64)
    for first in range(0, len(query_SD), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        query = query_SD[rows].astype(np.float64)
        for begin in range(0, len(case_ND), BLOCK_ROWS):
            case = case_ND[begin : begin + BLOCK_ROWS].astype(np.float64)
            # float64 and the clamp: the expansion of the square is else negative for equal latents.
            squared = (query**2).sum(axis=1)[:, None] + (case**2).sum(axis=1) - 2.0 * query @ case.T
            if own_N is not None:
                squared[own_N[rows][:, None] == begin + np.arange(len(case))] = np.inf
            place = squared.argmin(axis=1)
            reached = np.sqrt(np.maximum(squared[np.arange(len(query)), place], 0.0))
            closer = reached < least_S[rows]
            index_S[rows][closer] = begin + place[closer]
            least_S[rows][closer] = reached[closer]
    return least_S, index_S


def _votes(training: np.ndarray, held_out: np.ndarray, *, samples: np.ndarray, seed: int) -> dict[str, float]:
    """Each sample votes for its nearest case, among equally many of both kinds and none of its own person."""
    cases = min(len(training), len(held_out) - 1)
    if cases < 1:
        return {}
    generator = np.random.default_rng(seed)
    chosen_training = generator.permutation(len(training))[:cases]
    # One held-out case more than training cases: each sample leaves its own one out.
    chosen = generator.permutation(len(held_out))[: cases + 1]
    to_training, training_index = nearest(samples[chosen], training[chosen_training])
    to_held_out, held_out_index = nearest(samples[chosen], held_out[chosen], own_N=np.arange(len(chosen)))
    is_training = to_training <= to_held_out
    hits = np.bincount(np.where(is_training, training_index, cases + held_out_index))
    return {
        "votes": float(len(chosen)),
        "votes_training": float(is_training.sum()),
        "hits_squared": float((hits**2).sum()),
    }


def _flat(latents: np.ndarray) -> np.ndarray:
    return latents.reshape(len(latents), int(np.prod(latents.shape[1:])))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
