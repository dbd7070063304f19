"""Derived arrays: made once for a cohort and a digest, refused for another, gone with the cohort."""

from __future__ import annotations

import pytest
import torch

from cardionets_core.config.site import SiteConfig
from cardionets_core.data.derived import derived_folder, forget_derived
from cardionets_core.errors import CacheForeignError
from cardionets_core.tasks.kept import MOST_FILES, Kept


class Maker:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"x": torch.arange(3.0) + self.calls}


def ask(kept: Kept, maker: Maker, *, module=None, settings="") -> torch.Tensor:
    modules = {"m": module or torch.nn.Linear(1, 1, bias=False)}
    return kept.of("features", modules, ("m",), maker, settings=settings)["x"]


def test_it_is_made_once_and_outlives_the_object(tmp_path):
    maker = Maker()
    first = ask(Kept(tmp_path, cohort="c", digests={"m": "d"}), maker)
    again = ask(Kept(tmp_path, cohort="c", digests={"m": "d"}), maker)
    assert maker.calls == 1
    assert torch.equal(first, again)


@pytest.mark.parametrize("change", ["cohort", "digest", "settings"])
def test_another_cohort_module_or_setting_makes_its_own(tmp_path, change):
    maker = Maker()
    ask(Kept(tmp_path, cohort="c", digests={"m": "d"}), maker)
    cohort, digest = ("other" if change == part else part[0] for part in ("cohort", "digest"))
    digest = "d" if change != "digest" else "e"
    other = Kept(tmp_path, cohort=cohort, digests={"m": digest})
    ask(other, maker, settings="s" if change == "settings" else "")
    assert maker.calls == 2


def test_a_module_without_a_named_digest_is_told_by_its_values():
    maker, kept = Maker(), Kept()
    module = torch.nn.Linear(1, 1, bias=False)
    ask(kept, maker, module=module)
    ask(Kept(), maker, module=module)
    assert maker.calls == 2, "two objects without a folder share nothing"
    ask(kept, maker, module=module)
    assert maker.calls == 2


def test_a_file_of_another_digest_under_this_name_is_refused(tmp_path):
    ask(Kept(tmp_path, cohort="c", digests={"m": "old"}), Maker())
    (old,) = tmp_path.iterdir()
    ask(Kept(tmp_path, cohort="c", digests={"m": "new"}), Maker())
    (new,) = set(tmp_path.iterdir()) - {old}
    old.replace(new)
    with pytest.raises(CacheForeignError, match="other modules"):
        ask(Kept(tmp_path, cohort="c", digests={"m": "new"}), Maker())


def test_a_torn_file_is_refused(tmp_path):
    ask(Kept(tmp_path, cohort="c", digests={"m": "d"}), Maker())
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CacheForeignError, match="torn"):
        ask(Kept(tmp_path, cohort="c", digests={"m": "d"}), Maker())


def test_the_number_of_files_is_bounded(tmp_path):
    for number in range(MOST_FILES + 5):
        ask(Kept(tmp_path, cohort="c", digests={"m": str(number)}), Maker())
    assert len(list(tmp_path.iterdir())) == MOST_FILES


def test_what_was_derived_from_a_cohort_goes_with_it(tmp_path):
    config = SiteConfig.model_validate(
        {
            "site": "a",
            "source": {"kind": "local_site", "ecg": {"format": "wfdb", "folder": "ecg"}},
            "policy": {"phases": ["align"]},
            "folders": {"cache": tmp_path / "cache"},
        }
    )
    folder = derived_folder(config)
    for cohort in ("before", "after"):
        ask(Kept(folder, cohort=cohort, digests={"m": "d"}), Maker())
    (folder / ".features-x.derived.1.part").write_bytes(b"half")
    assert forget_derived(config, but_of="after") == 2
    kept = Kept(folder, cohort="after", digests={"m": "d"})
    maker = Maker()
    ask(kept, maker)
    assert maker.calls == 0 and len(list(folder.iterdir())) == 1
    assert forget_derived(config) == 1
