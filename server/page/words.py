"""What each task of a phase is for, in words for people who do not know its name."""

from __future__ import annotations

TASK_WORDS = {
    "ecg_mae": "the ECG encoder learns by filling in hidden parts of ECGs",
    "cmr_mae": "the cine encoder learns by filling in hidden parts of cardiac MRI",
    "principal": "the main directions in which cines differ, over all sites",
    "align": "ECG and cine of one person are brought together",
    "probe": "a ridge regression reads 82 phenotypes off the ECG",
    "standardise": "mean and spread of each phenotype over all sites",
    "phenotype": "a head learns 82 phenotypes of cardiac MRI from the ECG",
    "prevalence": "how common each disease is over all sites",
    "logistic": "a logistic regression reads five diseases off the ECG",
    "screening": "a head learns to screen for five diseases from the ECG",
    "calibrate": "probabilities are made honest, thresholds are chosen",
    "tokenizer": "cines are learned as short codes",
    "generate": "cines are learned to be drawn from ECGs",
    "memorisation": "is a drawn cine a copy of a patient's? A test before release",
    "fuse": "ECG and drawn cine are weighed together for screening",
}


def task_words(task: str) -> str:
    """What a task is for; empty where it is not known here."""
    return TASK_WORDS.get(task, "")
