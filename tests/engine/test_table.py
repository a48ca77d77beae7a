"""Reading a table of questions: what survives, and how each mistake is named."""

from pathlib import Path

import pytest

from panollava.data.table import Row, read_table, resolve_image
from panollava.errors import BadInput


def table(directory: Path, content: str | bytes) -> Path:
    path = directory / "train.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path, *, need_annotation: bool = True) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read_table(path, need_annotation)
    return str(caught.value).splitlines()


def test_rows_come_with_the_line_they_start_on(tmp_path: Path) -> None:
    path = table(tmp_path, 'url,query,annotation\na.jpg,interior,"two\nlines"\n\nb.jpg,furniture,"a chair, a table"\n')
    assert read_table(path) == [Row("a.jpg", "interior", "two\nlines", 2), Row("b.jpg", "furniture", "a chair, a table", 5)]


@pytest.mark.parametrize("caption", ["None", "NA", "nan", "null", "N/A", "1.0", "007"])
def test_a_caption_that_looks_like_a_missing_value_stays_text(tmp_path: Path, caption: str) -> None:
    assert read_table(table(tmp_path, f"url,query,annotation\na.jpg,q,{caption}\n"))[0].annotation == caption


def test_a_byte_order_mark_windows_lines_and_other_columns_do_no_harm(tmp_path: Path) -> None:
    path = table(tmp_path, b"\xef\xbb\xbfid,annotation,query,url\r\n1,\xe9\x83\xa8\xe5\xb1\x8b,interior,a.jpg\r\n")
    assert read_table(path) == [Row("a.jpg", "interior", "部屋", 2)]


@pytest.mark.parametrize("header", ["image,instruction,response", "image_path,query,caption", "URL, Query ,Annotation"])
def test_aliases_of_the_columns_are_understood(tmp_path: Path, header: str) -> None:
    assert read_table(table(tmp_path, f"{header}\na.jpg,q,a\n")) == [Row("a.jpg", "q", "a", 2)]


def test_a_column_s_own_name_wins_over_an_alias(tmp_path: Path) -> None:
    assert read_table(table(tmp_path, "image,url,query,annotation\nx,a.jpg,q,a\n"))[0].url == "a.jpg"


def test_two_columns_that_could_be_the_same_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, "image,image_path,query,annotation\nx,a.jpg,q,a\n")
    assert refused(path) == [f"{path}:1:url: 2 columns could be it: image, image_path"]


def test_missing_columns_are_named_with_those_that_were_found(tmp_path: Path) -> None:
    path = table(tmp_path, "file,query,text\na.jpg,q,a\n")
    assert refused(path) == [
        f"{path}:1:url: the column is missing (or image, image_path); found: file, query, text",
        f"{path}:1:annotation: the column is missing (or response, caption); found: file, query, text",
    ]


def test_the_annotation_may_be_missing_where_nothing_is_learned_from_it(tmp_path: Path) -> None:
    assert read_table(table(tmp_path, "url,query\na.jpg,q\n"), need_annotation=False) == [Row("a.jpg", "q", "", 2)]
    assert read_table(table(tmp_path, "url,query,annotation\na.jpg,q,\n"), need_annotation=False) == [Row("a.jpg", "q", "", 2)]


def test_empty_cells_are_named_by_line_and_column(tmp_path: Path) -> None:
    path = table(tmp_path, 'url,query,annotation\na.jpg,"q\nq",ok\nb.jpg, ,a\nc.jpg,q\n')
    assert refused(path) == [f"{path}:4:query: the cell is empty", f"{path}:5:annotation: the cell is empty"]


def test_an_unquoted_comma_is_named_instead_of_cutting_the_caption(tmp_path: Path) -> None:
    path = table(tmp_path, "url,query,annotation\na.jpg,q,a chair, a table\n")
    assert refused(path) == [f"{path}:2: 4 cells under 3 columns; a cell with a comma needs quotes around it"]


def test_a_quote_that_never_ends_is_named_by_the_row_it_starts_in(tmp_path: Path) -> None:
    path = table(tmp_path, 'url,query,annotation\na.jpg,q,a\nb.jpg,q,"open\nc.jpg,q,a\n')
    assert refused(path)[0].startswith(f"{path}:3: the row that starts here is no CSV")


def test_many_problems_are_listed_to_twenty_and_counted(tmp_path: Path) -> None:
    lines = refused(table(tmp_path, "url,query,annotation\n" + ",q,a\n" * 50))
    assert len(lines) == 21 and lines[-1] == "... and 30 more"


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere.csv") == [f"{tmp_path / 'nowhere.csv'}: No such file or directory."]
    assert refused(tmp_path) == [f"{tmp_path}: Is a directory."]
    assert "the file is empty" in refused(table(tmp_path, ""))[0]
    assert "no row below it" in refused(table(tmp_path, "url,query,annotation\n"))[0]
    assert f"{tmp_path / 'train.csv'}:2: not UTF-8" in refused(table(tmp_path, b"url,query,annotation\na.jpg,q,caf\xe9\n"))[0]


def test_an_image_is_sought_below_the_root_then_beside_the_table_then_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, beside, here = tmp_path / "root", tmp_path / "tables", tmp_path / "here"
    for place in (root, beside, here):
        place.mkdir()
    monkeypatch.chdir(here)
    for place in (here, beside, root):
        (place / "a.jpg").touch()
        assert resolve_image("a.jpg", beside / "train.csv", root) == place / "a.jpg"
    assert resolve_image(str(here / "a.jpg"), beside / "train.csv", root) == here / "a.jpg"
    assert resolve_image("../here/a.jpg", beside / "train.csv", root) == here / "a.jpg"


def test_an_image_that_is_nowhere_is_refused_with_the_places_that_were_searched(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"no such file below {tmp_path}"):
        resolve_image("a.jpg", tmp_path / "train.csv")
    with pytest.raises(BadInput, match="no such file"):
        resolve_image("a caption in the wrong column " * 100, tmp_path / "train.csv")


def test_remote_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="remote images are read only with allow_remote"):
        resolve_image("https://example.org/a.jpg", tmp_path / "train.csv")
