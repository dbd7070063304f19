"""What a log says of an error: sentences of the program, and never what was put into them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardionets_core.errors import ConfigError, DataError, PrivacyError, error_codes
from cardionets_core.logs.own_words import HIDDEN, OwnWords, kind_of, places_of, told_of
from client.log import DATA, ELSEWHERE, shown_path

MARK = "Müller-Lüdenscheidt 4711 1931-02-03"


def raised(error):
    """As it is caught; this file is none of the program's."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A module of the program that raises what it is told."""
    source = (
        "from cardionets_core.errors import DataError, ConfigError\n"
        "def refuse(name, key, count, path):\n"
        "    raise DataError(f'the table of {name} has {count} rows ' f'and no column {key}',\n"
        "                    where=f'site.yaml: source.{key}', remedy='mend ' + path + ' by hand')\n"
        "def dynamic(text):\n"
        "    raise ConfigError(text, where=text, remedy=text)\n"
        "def inner(name):\n"
        "    told = f'no reader knows {name}'\n"
        "    raise DataError(f'it was left out: {told}')\n"
    )
    file = tmp_path / "made_up.py"
    file.write_text(source)
    scope = {"__name__": "client.made_up"}
    exec(compile(source, str(file), "exec"), scope)
    return scope


def caught(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_the_holes_of_a_sentence_are_hidden_but_for_words_of_ours(program):
    error = caught(program["refuse"], MARK, "age", 4711, "/data/m.csv")
    told = told_of(error, words={"age"}, show_path=lambda path: "<shown>")
    assert told.what == f"the table of {HIDDEN} has {HIDDEN} rows and no column age"
    assert told.where == "site.yaml: source.age" and told.remedy == "mend <shown> by hand"
    assert all(isinstance(text, OwnWords) for text in (told.what, told.where, told.remedy))


def test_a_text_that_no_source_holds_becomes_the_class_s_first_line(program):
    told = told_of(caught(program["dynamic"], MARK))
    assert (told.what, told.where, told.remedy) == ("A study, site or scenario document is wrong.", "", "")


def test_a_sentence_inside_a_sentence_is_told_too(program):
    assert told_of(caught(program["inner"], MARK)).what == f"it was left out: no reader knows {HIDDEN}"


@given(text=st.text(min_size=1, max_size=60))
def test_nothing_that_was_put_in_comes_out(text):
    scope = {"__name__": "client.made_up"}
    exec(
        "from cardionets_core.errors import DataError\ndef f(t):\n    raise DataError(t, where=t, remedy=t)",
        scope,
    )
    marked = f"{MARK}{text}{MARK}"
    told = told_of(caught(scope["f"], marked))
    assert MARK not in told.what + told.where + told.remedy


def test_an_error_of_any_class_has_something_to_say():
    for cls in error_codes().values():
        if cls.code in ("record-refused",):
            continue
        assert str(told_of(raised(cls(MARK))).what) == (cls.__doc__ or "").strip().partition("\n")[0] != ""


def test_an_unexpected_error_is_told_by_its_class_and_its_places():
    def explode():
        raise ValueError(MARK)

    error = caught(explode)
    assert kind_of(error) == "builtins.ValueError"
    assert places_of(error).endswith("explode") and MARK not in places_of(error)


def test_paths_are_shown_only_where_the_program_named_them(hospital_config):
    root, config = hospital_config
    told = {
        root / "site.yaml": "site.yaml",
        root / "connection.yaml": "connection.yaml",
        root / "state" / "journal.jsonl": "state/journal.jsonl",
        root / "cache" / "cohort" / "manifest.json": "cache/cohort/manifest.json",
        root / "ecg" / f"{MARK}.xml": DATA,
        root / "people.csv": DATA,
        root / "anything" / "else": DATA,
        root / "state" / MARK: "<state>/…",
        root / "state" / ".." / "ecg" / "4711": DATA,
        root: ".",
    }
    for path, shown in told.items():
        assert shown_path(str(path), root=root, config=config) == shown, path
    assert shown_path(f"{root}/state/journal.jsonl:12", root=root, config=config) == "state/journal.jsonl:12"
    assert shown_path(f"/srv/{MARK}/x", root=root, config=config) == ELSEWHERE
    for path in (root / "ecg" / MARK, root / "people.csv"):
        assert shown_path(str(path), root=root, config=None) == DATA


@pytest.fixture
def hospital_config(tmp_path):
    """A site whose data lie in its folder, and one data folder that bears a name of ours."""
    from cardionets_core.config.site import read_site

    (tmp_path / "site.yaml").write_text(
        "site: alpha\nsource: {kind: mimic_iv_ecg, root: ecg}\npolicy: {phases: [ecg_mae]}\n"
    )
    return tmp_path, read_site(tmp_path / "site.yaml")


def test_a_data_folder_inside_a_folder_of_ours_is_still_data(tmp_path):
    from cardionets_core.config.site import read_site

    (tmp_path / "site.yaml").write_text(
        "site: alpha\nsource: {kind: mimic_iv_ecg, root: cache/ecg}\npolicy: {phases: [ecg_mae]}\n"
    )
    config = read_site(tmp_path / "site.yaml")
    assert shown_path(str(tmp_path / "cache" / "ecg" / "p1"), root=tmp_path, config=config) == DATA


def test_errors_that_were_never_raised_have_no_source():
    for error in (ConfigError(MARK), DataError(MARK, where=MARK), PrivacyError(MARK, remedy=MARK)):
        told = told_of(error)
        assert MARK not in told.what + told.where + told.remedy
