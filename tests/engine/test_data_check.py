"""`panollava data check`: every mistake in a table or its images is found with its line and column, and sound data passes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from panollava.data.check import Report, check_table
from panollava.data.make_demo import make_demo
from panollava.data.table import Problem
from panollava.errors import BadInput


def save(path: Path, width: int = 64, height: int = 32) -> None:
    pil.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


def table(directory: Path, rows: str, name: str = "train.csv") -> Path:
    path = directory / name
    path.write_text(f"url,query,annotation\n{rows}")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "a.jpg")
    save(tmp_path / "b.jpg")
    return tmp_path


@pytest.fixture
def sample() -> Path:
    """The real photographs, where they are."""
    beside = Path(__file__).parents[3] / "shared/data/quic360-sample"
    directory = Path(os.environ.get("PANOLLAVA_SAMPLE_DIR", beside))
    if not (directory / "downtest.csv").is_file():
        pytest.skip(f"the QuIC-360 sample is not at {directory} (PANOLLAVA_SAMPLE_DIR, or shared/data/quic360-sample beside the project)")
    return directory / "downtest.csv"


def test_a_sound_table_passes_with_its_counts(folder: Path) -> None:
    report = check_table(table(folder, "a.jpg,Interior,a room\na.jpg,interior ,one big room\nb.jpg,interior,a hall\n"))
    assert (report.errors, report.warnings) == ([], [])
    assert (report.rows, report.images, report.groups) == (3, 2, 2)
    assert report.references == {1: 1, 2: 1}
    assert report.words == {2: 2, 3: 1}


def test_missing_torn_and_misshapen_images_are_errors_at_their_first_row(folder: Path) -> None:
    (folder / "torn.jpg").write_bytes((folder / "a.jpg").read_bytes()[:500])
    (folder / "text.jpg").write_text("not a picture")
    save(folder / "tall.jpg", 32, 64)
    report = check_table(
        table(folder, "a.jpg,q,a\ntorn.jpg,q,a\ntorn.jpg,q,b\ntext.jpg,q,a\ntall.jpg,q,a\nnowhere.jpg,q,a\nhttps://x.org/a.jpg,q,a\n")
    )
    assert [(each.line, each.column) for each in report.errors] == [(3, "url"), (5, "url"), (6, "url"), (7, "url"), (8, "url")]
    torn, text, tall, nowhere, remote = (each.message for each in report.errors)
    assert torn.startswith("torn.jpg: ") and torn.endswith(" (2 rows)")
    assert text.startswith("text.jpg: not an image in one of JPEG")
    assert tall.startswith("tall.jpg: 32 x 64 pixels are not the 2:1 of a whole panorama")
    assert nowhere.startswith("nowhere.jpg: no such file below")
    assert "remote images are read only with allow_remote" in remote


@pytest.mark.parametrize(("width", "errors", "warnings"), [(200, 0, 0), (203, 0, 0), (206, 0, 1), (194, 0, 1), (219, 0, 1), (222, 1, 0), (178, 1, 0)])
def test_an_aspect_off_by_2_percent_is_remarked_on_and_by_10_percent_an_error(folder: Path, width: int, errors: int, warnings: int) -> None:
    save(folder / "c.png", width, 100)
    report = check_table(table(folder, "c.png,q,a\n"))
    assert (len(report.errors), len(report.warnings)) == (errors, warnings)


def test_empty_cells_and_broken_rows_are_errors_and_the_rest_is_still_looked_at(folder: Path) -> None:
    report = check_table(table(folder, "a.jpg,,a\nnowhere.jpg,q,a\nb.jpg,q,a, b\nb.jpg,q,a\n"))
    assert [(each.line, each.column) for each in report.errors] == [(2, "query"), (3, "url"), (4, "")]
    assert report.rows == 2


def test_missing_columns_are_errors_in_line_1(folder: Path) -> None:
    path = folder / "train.csv"
    path.write_text("url,text\na.jpg,a\n")
    report = check_table(path)
    assert [(each.line, each.column) for each in report.errors] == [(1, "query"), (1, "annotation")]
    assert "found: url, text" in report.errors[0].message


def test_a_table_without_annotations_passes_where_none_are_needed(folder: Path) -> None:
    path = folder / "ask.csv"
    path.write_text("url,query\na.jpg,q\n")
    assert check_table(path, need_annotation=False).errors == []
    assert [each.column for each in check_table(path).errors] == ["annotation"]


def test_a_repeated_row_is_remarked_on(folder: Path) -> None:
    report = check_table(table(folder, "a.jpg,q,a\nb.jpg,q,a\n./a.jpg,Q ,a\n"))
    assert report.errors == []
    assert report.warnings == [Problem(4, "", "the same image, query and annotation as in line 2")]


def test_an_image_that_another_split_shows_too_is_remarked_on(folder: Path) -> None:
    table(folder, "b.jpg,q,a\n", "test.csv")
    table(folder, "a.jpg,q,a\n", "notes.csv")
    report = check_table(table(folder, "a.jpg,q,a\nb.jpg,q,a\n"))
    assert report.warnings == [Problem(3, "url", "b.jpg: also in test.csv")]


def test_another_split_that_cannot_be_read_is_remarked_on(folder: Path) -> None:
    (folder / "valid.csv").write_bytes(b"url\xff")
    assert "not UTF-8" in check_table(table(folder, "a.jpg,q,a\n")).warnings[0].message


def test_images_are_sought_below_the_image_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = table(tmp_path_factory.mktemp("elsewhere"), "a.jpg,q,a\n")
    assert len(check_table(path).errors) == 1
    assert check_table(path, image_root=folder).errors == []


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        check_table(tmp_path / "train.csv")


def test_the_report_travels_as_json(folder: Path) -> None:
    report = check_table(table(folder, "a.jpg,q,a\nnowhere.jpg,q,a\n"))
    content = json.loads(report.model_dump_json())
    assert content["errors"][0]["line"] == 3 and content["errors"][0]["column"] == "url"
    assert Report.model_validate(content) == report


def test_the_text_names_every_problem_and_the_counts(folder: Path) -> None:
    path = table(folder, "a.jpg,q,a\nnowhere.jpg,q,a\na.jpg,q,a\n")
    lines = str(check_table(path)).splitlines()
    assert lines[0].startswith(f"error: {path}:3:url: nowhere.jpg: no such file")
    assert lines[1] == f"warning: {path}:4: the same image, query and annotation as in line 2"
    assert lines[2:] == [
        f"{path}: rows 3, images 1, questions 2",
        "references per question: 1 x 1, 2 x 1; words per annotation: 1 to 1",
        "errors: 1, warnings: 1",
    ]


def test_the_demo_data_passes(tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", train=6, valid=2, test=2)
    for split in ("train", "valid", "test"):
        report = check_table(tmp_path / "demo" / f"{split}.csv")
        assert (report.errors, report.warnings) == ([], [])
        assert set(report.references) == ({1} if split == "train" else {3})


def test_the_quic360_sample_passes(sample: Path) -> None:
    report = check_table(sample)
    assert (report.errors, report.warnings) == ([], [])
    assert (report.rows, report.images, report.groups) == (23, 5, 5)
    assert report.references == {3: 1, 5: 4}
