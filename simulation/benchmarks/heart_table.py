"""The tables of Fed-Heart-Disease as FLamby's protocol cuts them: four centers, 13 features, fixed test rows.

Comes in: the folder of the UCI heart-disease files. Goes out: each center's rows, split and standardised, and
those of all centers together. Draws nothing but the protocol's own split.

Legend: R rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cardionets_core.errors import FolderMissingError, SourceInvalidError

CENTERS = ("cleveland", "hungarian", "switzerland", "va")
FEATURES = 13
COLUMNS = 14
DROPPED = [10, 11, 12]
CATEGORIES = [2, 6]
TEST_SHARE = 0.34
SPLIT_SEED = 43


@dataclass(frozen=True, slots=True, kw_only=True)
class Center:
    """One center's rows.

    Attributes:
        name: of the center.
        features_RF: float32, by the mean and the deviation of its own training rows.
        pooled_RF: float32, the same rows by those of all centers' training rows.
        labels_R: float32, 1 for a narrowed vessel.
        is_test_R: bool.
    """

    name: str
    features_RF: np.ndarray
    pooled_RF: np.ndarray
    labels_R: np.ndarray
    is_test_R: np.ndarray


def read_centers(folder: Path) -> list[Center]:
    """The four centers, in the protocol's order.

    Rows keep the order of the files: the random order of a batch is drawn over their places.

    Raises:
        FolderMissingError: a file is not there.
        SourceInvalidError: a file is none of these tables.
    """
    import pandas as pd

    tables = [_read(folder / f"processed.{name}.data") for name in CENTERS]
    whole = pd.concat([table.iloc[:, :-1] for table in tables], ignore_index=True)
    raw_RF = pd.get_dummies(whole, columns=CATEGORIES, drop_first=True).to_numpy().astype(np.float32)
    if raw_RF.shape[1] != FEATURES:
        raise SourceInvalidError(
            f"the tables give {raw_RF.shape[1]} features, the protocol has {FEATURES}",
            where=str(folder),
            remedy="name the folder of the four processed.CENTER.data files as UCI publishes them",
        )
    ends = np.cumsum([len(table) for table in tables])
    raw = np.split(raw_RF, ends[:-1])
    labels = [(table.iloc[:, -1].to_numpy() > 0).astype(np.float32) for table in tables]
    tests = [_test_rows(values) for values in labels]
    everybody = np.concatenate([rows[~test] for rows, test in zip(raw, tests, strict=True)])
    return [
        Center(
            name=name,
            features_RF=_standardised(rows, rows[~test]),
            pooled_RF=_standardised(rows, everybody),
            labels_R=label,
            is_test_R=test,
        )
        for name, rows, label, test in zip(CENTERS, raw, labels, tests, strict=True)
    ]


def _read(path: Path):  # type: ignore[no-untyped-def]
    """A center's complete rows, with the columns that the protocol keeps."""
    import pandas as pd

    if not path.is_file():
        raise FolderMissingError(
            "a table of Fed-Heart-Disease is not there",
            where=str(path),
            remedy="pass as --data the folder of the four processed.CENTER.data files of UCI's heart disease",
        )
    try:
        table = pd.read_csv(path, header=None, na_values="?", dtype=np.float64)
    except ValueError as error:
        raise SourceInvalidError(
            "the table holds more than numbers", where=str(path), remedy="fetch the file from UCI again"
        ) from error
    if table.shape[1] != COLUMNS:
        raise SourceInvalidError(
            f"the table has {table.shape[1]} columns, not {COLUMNS}",
            where=str(path),
            remedy="give the processed.CENTER.data files, not the raw ones",
        )
    return table.drop(columns=DROPPED).dropna()


def _test_rows(labels_R: np.ndarray) -> np.ndarray:
    """Which rows are held out; the classes are kept in proportion where each has more than two rows."""
    from sklearn.model_selection import train_test_split

    smallest = min(int((labels_R == value).sum()) for value in (0.0, 1.0))
    _, held = train_test_split(
        np.arange(len(labels_R)),
        test_size=TEST_SHARE,
        random_state=SPLIT_SEED,
        shuffle=True,
        stratify=labels_R if smallest > 2 else None,
    )
    is_test_R = np.zeros(len(labels_R), dtype=bool)
    is_test_R[held] = True
    return is_test_R


def _standardised(rows_RF: np.ndarray, by_RF: np.ndarray) -> np.ndarray:
    mean, deviation = by_RF.mean(axis=0, dtype=np.float64), by_RF.std(axis=0, ddof=1, dtype=np.float64)
    # Cholesterol is 0 in every row of one center.
    scaled: np.ndarray = (rows_RF - mean) / np.where(deviation > 0, deviation, 1.0)
    return scaled.astype(np.float32)
