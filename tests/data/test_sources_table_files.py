"""Files of tables and lists: what is no table is refused before it fills the memory or blocks."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cardionets_core.data.sources import table_files, tables
from cardionets_core.data.sources.table_files import MAXIMUM_LINE_BYTES, BoundedStream
from cardionets_core.data.sources.tables import MAXIMUM_COLUMNS, column_names, read_columns
from cardionets_core.data.sources.withdrawals import read_list, read_ukb_lists
from cardionets_core.errors import DataError, FolderMissingError, SourceInvalidError

KEY = "source.people"
GOOD = b"id,x\nA,1\nB,2\n"


def refusal(path: Path, error: type[DataError] = SourceInvalidError) -> str:
    """What is said of a table that must be refused, whichever way it is opened."""
    for read in (
        lambda: list(read_columns(path, key=KEY, columns=("id",))),
        lambda: column_names(path, key=KEY),
    ):
        with pytest.raises(error) as caught:
            read()
        assert caught.value.where == f"site.yaml: {KEY}"
    return str(caught.value)


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("sheet.xml", content)
    return packed.getvalue()


@pytest.mark.parametrize(("content", "told"), [
    (GOOD.decode().encode("utf-16"), "UTF-16"), (GOOD.decode().encode("utf-16-be"), "UTF-16"),
    ("\ufeff漢字,語\n".encode("utf-16-le"), "UTF-16"), (zipped(GOOD), "Excel or zip"),
    (b"\x1f\x8b\x08" + GOOD, "compressed"), (b"PAR1" + GOOD, "Parquet file under another ending"),
    (GOOD + b"\0", "no text holds"), (b"\0" * 100, "no text holds"),
    (b"x" * (MAXIMUM_LINE_BYTES + 1), "never ends"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_what_is_no_text_is_told_apart_with_a_remedy(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    text = refusal(tmp_path / name)
    assert told in text and ("UTF-8" in text or "end every line" in text)


@pytest.mark.parametrize("name", ["t.csv", "t.tab", "t.parquet"])
def test_a_file_of_50_gigabytes_is_refused_by_its_size(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD)
    os.truncate(path, 50_000_000_000)
    assert "50,000,000,000 bytes" in refusal(path)


@pytest.mark.parametrize(("columns", "cell"), [(MAXIMUM_COLUMNS, ""), (2_000, "a")])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_header_that_only_repeats_is_counted_before_it_is_read(
    tmp_path: Path, name: str, columns: int, cell: str
) -> None:
    separator = "," if name == "t.csv" else "\t"
    (tmp_path / name).write_text("id" + (separator + cell) * columns + "\nA\n")
    assert f"{columns + 1:,} columns" in refusal(tmp_path / name)


def test_zeros_behind_the_first_million_bytes_stop_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(GOOD + b"C,3\n" * 500_000)
    os.truncate(path, 20_000_000_000)
    with pytest.raises(SourceInvalidError, match="no text holds"):
        list(read_columns(path, key=KEY, columns=("id",)))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "w.csv"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_pipes_folders_and_devices_are_no_tables(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(tmp_path / name)
    assert "no plain file" in refusal(tmp_path / name, FolderMissingError)
    with pytest.raises(FolderMissingError, match="no plain file"):
        read_list(tmp_path / name, numbers=False)
    if not (tmp_path / name).is_dir():
        with pytest.raises(FolderMissingError, match="no plain file"):
            read_ukb_lists(tmp_path / name)


def test_what_may_not_be_read_is_not_called_a_bad_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    (tmp_path / "t.csv").write_bytes(GOOD)
    monkeypatch.setattr(Path, "open", refuse)
    assert "may not be read" in refusal(tmp_path / "t.csv", FolderMissingError)
    monkeypatch.setattr(Path, "stat", refuse)
    assert "cannot be reached" in refusal(tmp_path / "t.csv", FolderMissingError)


def test_a_quotation_mark_that_nothing_closes_ends_with_the_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    rows = b"C,3\n" * 400_000
    path.write_bytes(GOOD + rows + b'D,"4\n' + rows)
    monkeypatch.setattr(table_files, "MAXIMUM_PIECE_BYTES", 1_000_000)
    monkeypatch.setattr(tables, "_CELLS_AT_ONCE", 100_000)
    with pytest.raises(SourceInvalidError, match="quotation mark"):
        list(read_columns(path, key=KEY, columns=("id",)))
    path.write_bytes(GOOD + 2 * rows)
    assert sum(len(piece["id"]) for piece in read_columns(path, key=KEY, columns=("id",))) == 800_002


def test_pieces_of_a_wide_table_have_few_rows_and_lose_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_CELLS_PASSED", 1_000)
    monkeypatch.setattr(tables, "_FEWEST_ROWS", 7)
    names = ["id", *(f"c{place}" for place in range(300))]
    lines = [",".join(names), *(f"{row}," + ",".join(["9"] * 300) for row in range(50))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    pieces = [piece["id"] for piece in read_columns(tmp_path / "t.csv", key=KEY, columns=("id",))]
    assert [len(piece) for piece in pieces] == [7] * 7 + [1]
    assert [cell for piece in pieces for cell in piece] == [str(row) for row in range(50)]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_a_plain_table_comes_out_whole(
    tmp_path: Path, ends: bytes, start: bytes, read_table: Callable[..., Any]
) -> None:
    (tmp_path / "t.csv").write_bytes(start + GOOD.replace(b"\n", ends))
    assert list(read_table(tmp_path / "t.csv", key=KEY, columns=("id", "x"))) == [
        {"id": "A", "x": "1"},
        {"id": "B", "x": "2"},
    ]


def test_the_stream_gives_every_byte_whatever_is_asked_for() -> None:
    content = bytes(range(1, 256)) * 20_000 + b"\n"
    for sizes in ((-1,), (None,), (3_000_000, -1), (1, 0, 1_000_001, None)):
        stream = io.BufferedReader(BoundedStream(io.BytesIO(content), key=KEY))
        found = [stream.read(size) for size in sizes]
        assert b"".join(found) == content
        assert [len(part) for part, size in zip(found, sizes, strict=True) if size and size > 0] == [
            size for size in sizes if size and size > 0
        ]


@pytest.mark.parametrize("change", [
    lambda whole: whole[:-1], lambda whole: b"XXXX" + whole[4:],
    lambda whole: whole[:-8] + b"\xff" * 4 + whole[-4:],
    lambda whole: b"PAR1", lambda whole: b"PAR1" + b"\0" * 4 + b"PAR1", lambda whole: GOOD,
])  # fmt: skip
def test_parquet_bears_its_marks_and_a_footer_that_fits(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["A"]}), path)
    path.write_bytes(change(path.read_bytes()))
    assert "no whole Parquet" in refusal(path)


def test_parquet_is_bounded_by_its_rows_and_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": ["A" * 1_000] * 3_000}), path)
    assert path.stat().st_size < 20_000, "packed, it looks small"
    for module, name in ((tables, "MAXIMUM_PIECE_BYTES"), (tables, "_MAXIMUM_ROWS")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, 2_999)
            with pytest.raises(SourceInvalidError, match="more rows, or longer cells"):
                list(read_columns(path, key=KEY, columns=("id",)))
    assert sum(len(piece["id"]) for piece in read_columns(path, key=KEY, columns=("id",))) == 3_000


def test_a_withdrawal_list_is_small_and_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "w1_20240101.csv"
    path.write_text("".join(f"{number}\n" for number in range(1_000_000, 1_200_000)))
    assert len(read_ukb_lists(tmp_path)) == 200_000
    os.truncate(path, 50_000_000_000)
    with pytest.raises(SourceInvalidError, match=r"(?s)50,000,000,000 bytes.*source\.withdrawals"):
        read_ukb_lists(tmp_path)
    path.write_bytes("1\n2\n".encode("utf-16"))
    with pytest.raises(SourceInvalidError, match=r"(?s)UTF-16.*UTF-8"):
        read_ukb_lists(tmp_path)
