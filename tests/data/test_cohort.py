"""What a publication is made of, and the cohort that is opened: views, people, bounded memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool3d

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.cache import summary
from cardionets_core.data.cine_sizes import CineSizes
from cardionets_core.data.cohort import Cohort, concatenate, empty_cohort
from cardionets_core.data.listing import Listing, recording_keys
from cardionets_core.data.publish import BYTES_A_CINE, BYTES_A_SAMPLE, compose
from cardionets_core.data.records import DISEASES, LABELS, Person, Recording
from cardionets_core.data.store_log import Entry
from cardionets_core.data.windows import InputShape

KEY = bytes(range(32))


class Tables:
    """A source that knows people only."""

    def person(self, patient: str, visit: str) -> Person:
        if patient != "A":
            return Person()
        labels = {"hf": 1.0, "hcm": 0.0, "rcm": 0.0, "dcm": 1.0}
        return Person(age_years=50.5 + int(visit), sex="M", phenotypes={24103: 60.0}, diseases=labels)


def config(folder: Path, **prepare: Any) -> SiteConfig:
    return SiteConfig(
        site="here", source={"kind": "mimic_iv_ecg", "root": folder}, policy={"phases": ["ecg_mae"]},
        prepare=prepare,
    )  # fmt: skip


def listed(*recordings: tuple[str, str, str, str]) -> Listing:
    found = [Recording(patient=p, visit=v, kind=k, path=Path(n)) for p, v, k, n in recordings]  # type: ignore[arg-type]
    return Listing(recordings=recording_keys(found, key=KEY), stamps={}, digest="")


def test_a_row_names_the_last_item_of_each_view_and_what_the_tables_say(tmp_path: Path) -> None:
    listing = listed(
        ("A", "2", "ecg", "e2"), ("A", "2", "cine", "long"), ("A", "2", "cine", "later"),
        ("A", "2", "cine", "short"), ("A", "3", "ecg", "e3"), ("B", "1", "ecg", "torn"),
        ("B", "1", "cine", "axis"),
    )  # fmt: skip
    item = BYTES_A_CINE
    places = {
        "e2": {"ecg": (5 * BYTES_A_SAMPLE, 7 * BYTES_A_SAMPLE), "signature": (0, 4)},
        "e3": {"ecg": (0, 3 * BYTES_A_SAMPLE), "signature": (4, 4)},
        "long": {"4ch": (3 * item, item), "2ch": (4 * item, item)},
        "later": {"4ch": (9 * item, item)},
        "short": {"sax": (0, item)},
        "axis": {"sax": (item, item)},
        "torn": {},
    }
    entries = {}
    for key, recording in listing.recordings.items():
        name = recording.path.name
        reason = "" if places[name] else "ecg-flat"
        entries[key] = Entry(key=key, kind=recording.kind, places=places[name], digest=name, reason=reason)
    settings = config(tmp_path)
    draft = compose(settings, key=KEY, listing=listing, entries=entries, source=Tables())  # type: ignore[arg-type]
    rows = [dict(zip(draft.rows, values, strict=True)) for values in zip(*draft.rows.values(), strict=True)]
    rows.sort(key=lambda row: (row["sex"] < 0, row["age_years"] or 0))
    assert [[row[view] for view in ("4ch", "2ch", "3ch", "sax")] for row in rows] == [
        # "later" is before "long" by name, so the last 4-chamber cine is that of "long".
        [3, 4, -1, 0], [-1, -1, -1, -1], [-1, -1, -1, 1],
    ]  # fmt: skip
    assert [row["age_years"] for row in rows] == [52.5, 53.5, None]
    assert [row["sex"] for row in rows] == [1, 1, -1] and [row["ecg"] >= 0 for row in rows] == [
        True,
        True,
        False,
    ]
    assert draft.refusals == {"ecg-flat": 1}
    assert draft.counts() == {"records": 7, "rows": 3, "ecgs": 2, "patients": 2, "cines": 5}
    held = {row["age_years"]: row["ecg"] for row in rows}
    ecgs = [
        place
        for place in zip(draft.records["ecg_offset"], draft.records["ecg_samples"], strict=True)
        if place[1]
    ]
    assert ecgs[held[52.5]] == (5, 7) and ecgs[held[53.5]] == (0, 3)
    labels = draft.disease_array()
    assert np.nansum(draft.phenotype_array()) == 120 and labels.dtype == np.float32
    told = {"hf": 1.0, "rcm": 0.0, "dcm": 1.0, "hcm": 0.0}
    by_person = sorted(map(list, np.nan_to_num(labels, nan=-1.0)))
    assert by_person[1:] == [[told.get(name, -1.0) for name in LABELS]] * 2 and set(by_person[0]) == {-1.0}


def test_the_digest_knows_content_and_order_but_no_place(tmp_path: Path) -> None:
    listing = listed(("A", "1", "ecg", "a"), ("B", "1", "ecg", "b"))
    keys = list(listing.recordings)

    def digest(first: int, *, content: str = "x", source: Any = None, **prepare: Any) -> str:
        starts = {keys[0]: first, keys[1]: 48 - first}
        entries = {
            key: Entry(key=key, kind="ecg", digest=content, places={"ecg": (starts[key], 24)}) for key in keys
        }
        source = source or Tables()
        settings = config(tmp_path, **prepare)
        return compose(settings, key=KEY, listing=listing, entries=entries, source=source).content.hexdigest()

    class Nobody(Tables):
        def person(self, patient: str, visit: str) -> Person:
            return Person()

    assert digest(0) == digest(48)
    others = {
        digest(0, content="y"),
        digest(0, source=Nobody()),
        digest(0, split={"test": 0.98, "validation": 0}),
    }
    assert len(others | {digest(0)}) == 4


def test_files_of_one_name_are_told_apart_and_a_moved_folder_changes_nothing() -> None:
    def keys(root: str, *names: str) -> list[str]:
        found = [Recording(patient="A", visit="1", kind="ecg", path=Path(root, name)) for name in names]
        return list(recording_keys(found, key=KEY))

    names = ("a/rec.hea", "b/rec.hea", "b/other.hea")
    assert len(set(keys("/here", *names))) == 3 and keys("/here", *names) == keys("/elsewhere/deep", *names)
    assert keys("/here", "a/rec.hea", "a/rec.hea") == keys("/here", "a/rec.hea")
    assert keys("/here", "a/rec.hea") != keys("/here", "a/rec2.hea")


def small_cohort(site: str, *, value: int, **changes: Any) -> Cohort:
    """Two rows; the records lie in reverse order with gaps between them."""
    counts = np.zeros(12 * 20, dtype=np.int16)
    for record, offset in enumerate((12, 2)):
        counts[12 * offset : 12 * (offset + 5)] = value + record
    content: dict[str, Any] = {
        "site": site, "digest": site, "ecg_counts": counts, "ecg_offsets": np.array([12, 2]),
        "ecg_samples": np.array([5, 5]), "cines": np.zeros((3, 50, 96, 96), np.uint8),
        "row_patient": np.array([0, 1]), "row_split": np.zeros(2, np.int8), "row_ecg": np.array([0, 1]),
        "row_cine": np.array([2, -1]), "phenotypes": np.full((2, 82), np.nan, np.float32),
        "diseases": np.full((2, len(LABELS)), np.nan, np.float32),
    }  # fmt: skip
    return Cohort(**{**content, **changes})


def test_cohorts_with_gaps_and_views_are_joined() -> None:
    first = small_cohort("a", value=1)
    second = small_cohort(
        "b", value=7, row_views={"sax": np.array([-1, 0])}, row_sex=np.array([0, 1], np.int8),
        row_age_years=np.array([40, np.nan], np.float32),
    )  # fmt: skip
    joined = concatenate([first, second], site="all")
    assert [joined.ecg_mv(record)[3, 4] for record in range(4)] == [
        np.float32(0.001) * v for v in (1, 2, 7, 8)
    ]
    assert joined.row_cine.tolist() == [2, -1, 5, -1]
    assert {view: items.tolist() for view, items in joined.row_views.items()} == {"sax": [-1, -1, -1, 3]}
    assert joined.row_sex.tolist() == [-1, -1, 0, 1] and first.row_sex.dtype == np.int8
    np.testing.assert_array_equal(joined.row_age_years, np.array([np.nan, np.nan, 40, np.nan], np.float32))


@pytest.mark.parametrize("frames, pixels", [(8, 32), (25, 64), (50, 96)])
def test_cines_at_a_size_are_area_means_and_a_bounded_number_is_kept(frames: int, pixels: int) -> None:
    cines = np.random.default_rng(0).integers(0, 256, (6, 50, 96, 96), dtype=np.uint8)
    one = 4 * frames * pixels * pixels
    sizes = CineSizes(kept_bytes=3 * one)
    expected = adaptive_avg_pool3d(
        torch.from_numpy(cines.astype(np.float32)), (frames, pixels, pixels)
    ).numpy()
    for items in ([0, 1, 2, 3, 4, 5], [5, 5, 0], [], [2]):
        taken = sizes.take(cines, np.array(items, dtype=np.int64), frames=frames, pixels=pixels)
        np.testing.assert_array_equal(taken, expected[items])
        assert sizes.bytes <= 3 * one
    assert (sizes.bytes == 0) == (frames == 50)


def test_a_batch_holds_the_cines_of_its_rows() -> None:
    cines = np.random.default_rng(1).integers(0, 256, (3, 50, 96, 96), dtype=np.uint8)
    cohort = small_cohort("a", value=1, cines=cines, row_cine=np.array([2, 0]))
    shape = InputShape(ecg_samples=5, cine_frames=50, cine_pixels=96)
    batch = cohort.batch(np.array([1, 0]), keys=frozenset({"cine"}), shape=shape)
    assert batch.cine_BFYX is not None
    np.testing.assert_allclose(batch.cine_BFYX.numpy(), cines[[0, 2]] / 127.5 - 1, atol=1e-6)


def seen(cine: np.ndarray, *, frames: int, pixels: int) -> np.ndarray:
    """The middle 80 x 80 of a kept cine at a size, from -1 to 1."""
    middle = torch.from_numpy(cine[:, 8:88, 8:88].astype(np.float32))[None]
    sized = adaptive_avg_pool3d(middle, (frames, pixels, pixels))[0].numpy()
    return 2 * (sized - sized.min()) / (sized.max() - sized.min()) - 1


BOTH = InputShape(ecg_samples=5, cine_frames=25, cine_pixels=32, sax_pixels=40)


def two_views(**changes: Any) -> Cohort:
    """Six rows: both views twice (one visit with two ECGs), the long axis, the short axis, neither, both."""
    cines = np.random.default_rng(2).integers(60, 200, (5, 50, 96, 96), dtype=np.uint8)
    cines[:, :, :8] = 0  # the rim, which no short axis shows
    cines[4, :, 8:88, 8:88] = 31
    rows: dict[str, Any] = {
        "row_patient": np.arange(6), "row_split": np.zeros(6, np.int8),
        "row_ecg": np.array([0, 1, 1, -1, 0, -1]), "row_cine": np.array([0, 0, 2, -1, -1, 3]),
        "phenotypes": np.full((6, 82), np.nan, np.float32),
        "diseases": np.full((6, len(LABELS)), np.nan, np.float32), "cines": cines,
        "row_views": {"sax": np.array([1, 1, -1, 3, -1, 4]), "2ch": np.full(6, -1)},
    }  # fmt: skip
    return small_cohort("a", value=1, **{**rows, **changes})


@pytest.mark.parametrize("frames, pixels", [(25, 40), (50, 80), (8, 33)])
def test_a_batch_of_the_short_axis_shows_the_middle_from_its_least_to_its_greatest(
    frames: int, pixels: int
) -> None:
    cohort = two_views()
    shape = InputShape(ecg_samples=5, cine_frames=frames, cine_pixels=32, sax_pixels=pixels)
    rows = np.array([3, 0])
    expected = np.stack([seen(cohort.cines[item], frames=frames, pixels=pixels) for item in (3, 1)])
    named = cohort.batch(rows, keys=frozenset({"sax"}), shape=shape)
    shown = cohort.of_view("sax").batch(rows, keys=frozenset({"cine"}), shape=shape.of_view("sax"))
    assert named.sax_BFYX is not None and shown.cine_BFYX is not None and named.cine_BFYX is None
    assert named.sax_BFYX.dtype == torch.float32 and named.sax_known_B is None
    np.testing.assert_allclose(named.sax_BFYX.numpy(), expected, atol=2e-6)
    assert torch.equal(named.sax_BFYX, shown.cine_BFYX)
    assert (named.sax_BFYX.amin(dim=(1, 2, 3)) == -1).all() and (
        named.sax_BFYX.amax(dim=(1, 2, 3)) == 1
    ).all()
    constant = cohort.batch(np.array([5]), keys=frozenset({"sax"}), shape=shape).sax_BFYX
    assert constant is not None and constant.shape == (1, frames, pixels, pixels) and not constant.any()
    with pytest.raises(ValueError, match="no size for the view sax"):
        cohort.batch(
            rows, keys=frozenset({"sax"}), shape=InputShape(ecg_samples=5, cine_frames=8, cine_pixels=8)
        )


def test_a_cine_of_one_number_is_kept_apart_for_each_view() -> None:
    cohort = two_views()
    shape = InputShape(ecg_samples=5, cine_frames=25, cine_pixels=40, sax_pixels=40)
    row = np.array([0])
    once = [cohort.of_view("sax").batch(row, keys=frozenset({"cine"}), shape=shape.of_view(view)).cine_BFYX
            for view in ("4ch", "sax", "4ch")]  # fmt: skip
    assert all(cine is not None for cine in once)
    assert not torch.equal(once[0], once[1]) and torch.equal(once[0], once[2])  # type: ignore[arg-type]


def test_a_cohort_of_a_view_is_the_same_with_other_cines() -> None:
    cohort = two_views()
    short = cohort.of_view("sax")
    assert short.row_cine.tolist() == [1, 1, -1, 3, -1, 4] and short.digest == cohort.digest
    assert short.cines is cohort.cines and short.row_views["2ch"].tolist() == [-1] * 6
    assert cohort.of_view("3ch").row_cine.tolist() == [-1] * 6
    for back in (short.of_view("4ch"), cohort.of_view("4ch")):
        assert back.row_cine.tolist() == cohort.row_cine.tolist()
        assert set(back.row_views) == {"sax", "2ch"}
    assert short.of_view("sax").row_cine.tolist() == short.row_cine.tolist()
    assert summary(short) == summary(cohort)
    assert summary(cohort)["train"]["cines"] == 3 and summary(cohort)["train"]["views"] == {
        "sax": 3,
        "2ch": 0,
    }
    assert BOTH.of_view("sax").view == "sax" and BOTH.of_view("sax").of_view("4ch") == BOTH
    joined = concatenate([small_cohort("b", value=1), short], site="both")
    assert joined.row_cine.tolist() == [2, -1, 4, 4, -1, 6, -1, 7]
    assert joined.items("4ch").tolist() == [2, -1, 3, 3, 5, -1, -1, 6]
    assert joined.items("sax").tolist() == [-1, -1, 4, 4, -1, 6, -1, 7]


def test_rows_are_those_with_the_views_that_are_needed() -> None:
    cohort = two_views()

    def found(*needs: str, of: Cohort = cohort) -> list[int]:
        return of.rows(frozenset(needs), "train", BOTH).tolist()

    assert found("cine") == [0, 2, 5] and found("ecg", "cine") == [0, 1, 2]
    assert found("sax") == [0, 3, 5] and found("ecg", "sax") == [0, 1]
    assert found("cmr") == [0, 2, 3, 5] and found("ecg", "cmr") == [0, 1, 2]
    assert found("cine", "sax") == [0, 5]
    assert found("cine", of=cohort.of_view("sax")) == [0, 3, 5]
    assert found("cmr", of=cohort.of_view("sax")) == [0, 2, 3, 5]
    bare = two_views(row_views={})
    assert found("sax", of=bare) == [] and found("cmr", of=bare) == [0, 2, 5]
    # Two short axes beside one long axis are two pairs.
    twice = two_views(row_views={"sax": np.array([1, 4, -1, 3, -1, 4])})
    assert found("cmr", of=twice) == [0, 1, 2, 3, 5] and found("cine", of=twice) == [0, 2, 5]
    nobody = empty_cohort(site="nobody", phenotypes=82)
    assert all(
        found(need, of=each) == [] for need in ("sax", "cmr") for each in (nobody, nobody.of_view("sax"))
    )


def test_a_batch_of_both_views_says_which_rows_have_which() -> None:
    cohort = two_views()
    rows = np.array([2, 5, 4, 3, 1])
    batch = cohort.batch(rows, keys=frozenset({"cmr"}), shape=BOTH)
    assert batch.cine_BFYX is not None and batch.sax_BFYX is not None
    assert batch.cine_known_B is not None and batch.cine_known_B.tolist() == [True, True, False, False, True]
    assert batch.sax_known_B is not None and batch.sax_known_B.tolist() == [False, True, False, True, True]
    assert batch.cine_BFYX.shape == (5, 25, 32, 32) and batch.sax_BFYX.shape == (5, 25, 40, 40)
    assert not batch.cine_BFYX[~batch.cine_known_B].any() and not batch.sax_BFYX[~batch.sax_known_B].any()
    alone = cohort.batch(rows[[0, 1, 4]], keys=frozenset({"cine"}), shape=BOTH)
    assert torch.equal(batch.cine_BFYX[batch.cine_known_B], alone.cine_BFYX)  # type: ignore[arg-type]
    assert alone.cine_known_B is None and alone.sax_known_B is None and alone.sax_BFYX is None
    np.testing.assert_allclose(
        batch.sax_BFYX[4].numpy(), seen(cohort.cines[1], frames=25, pixels=40), atol=2e-6
    )
    other = cohort.of_view("sax").batch(rows, keys=frozenset({"cmr"}), shape=BOTH.of_view("sax"))
    assert torch.equal(other.cine_BFYX, batch.cine_BFYX)  # type: ignore[arg-type]
    moved = batch.to(torch.device("cpu"))
    assert moved.sax_known_B is not None and torch.equal(moved.sax_known_B, batch.sax_known_B)
    parts = list(batch.parts(2))
    assert [part.size for part in parts] == [2, 3]
    assert torch.equal(torch.cat([part.sax_BFYX for part in parts]), batch.sax_BFYX)  # type: ignore[misc]
    assert [part.cine_known_B.tolist() for part in parts] == [[True, True], [False, False, True]]  # type: ignore[union-attr]
    empty = cohort.batch(rows[:0], keys=frozenset({"cmr"}), shape=BOTH)
    assert empty.sax_BFYX is not None and empty.sax_BFYX.shape == (0, 25, 40, 40)
    assert empty.sax_known_B is not None and empty.sax_known_B.shape == (0,)
    nobody = empty_cohort(site="nobody", phenotypes=82).batch(rows[:0], keys=frozenset({"cmr"}), shape=BOTH)
    assert nobody.cine_BFYX is not None and nobody.cine_BFYX.shape == (0, 25, 32, 32)


def test_labels_choose_rows_and_come_with_them() -> None:
    nothing = [np.nan] * 8
    labels = np.array([
        nothing, [0, *[np.nan] * 7], [np.nan, 1, np.nan, np.nan, np.nan, 0, 0, 1], [*[np.nan] * 5, 1, 0, 0],
        [1] * 5 + [np.nan] * 3,
    ], np.float32)  # fmt: skip
    rows = {"row_patient": np.arange(5), "row_split": np.array([0, 0, 0, 0, 2], np.int8),
            "row_ecg": np.array([0, 1, 0, -1, 1]), "row_cine": np.full(5, -1),
            "phenotypes": np.full((5, 82), np.nan, np.float32)}  # fmt: skip
    cohort = small_cohort("a", value=1, diseases=labels, **rows)
    shape = InputShape(ecg_samples=5, cine_frames=50, cine_pixels=96)

    def found(*needs: str, split: Any = "train") -> list[int]:
        return cohort.rows(frozenset(needs), split, shape).tolist()

    assert found("labels") == [1, 2] and found("labels", split="test") == [4]
    assert found("subtype") == [2, 3] and found("ecg", "subtype") == [2] == found("labels", "subtype")
    assert found("ecg", "labels") == [1, 2]
    chosen = np.array([3, 0, 2, 2])
    batch = cohort.batch(chosen, keys=frozenset({"labels"}), shape=shape)
    assert batch.labels_BD is not None and batch.labels_BD.dtype == torch.float32
    np.testing.assert_array_equal(batch.labels_BD.numpy(), labels[chosen])
    assert batch.row_B.tolist() == chosen.tolist() and batch.row_B.dtype == torch.int64
    assert batch.ecg_BLT is None and batch.phenotypes_BK is None
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.row_B, batch.row_B) and moved.labels_BD is not None
    assert cohort.batch(chosen, keys=frozenset(), shape=shape).labels_BD is None
    none = empty_cohort(site="nobody", phenotypes=82)
    assert none.batch(chosen[:0], keys=frozenset({"labels"}), shape=shape).labels_BD.shape == (0, len(LABELS))  # type: ignore[union-attr]
    assert len(none.rows(frozenset({"labels"}), "train", shape)) == 0
    joined = concatenate([none, cohort, cohort], site="both")
    np.testing.assert_array_equal(joined.diseases, np.concatenate([labels, labels]))
    assert joined.rows(frozenset({"subtype"}), "train", shape).tolist() == [2, 3, 7, 8]
    assert len(DISEASES) == 5 and LABELS[5:] == ("rcm", "dcm", "hcm")
