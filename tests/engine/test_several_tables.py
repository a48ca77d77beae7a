"""A split of several tables: all are used, in order, each problem is named by its file, and what was learned from has a fingerprint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pil

from panollava import events
from panollava.config import RunConfig, merge, parse
from panollava.data.fingerprint import changed, fingerprint, write_fingerprints
from panollava.data.index import build_index
from panollava.data.table import resolve_in
from panollava.errors import BadInput
from panollava.events import Note
from panollava.presets import PRESETS
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import StopRequest


def save(path: Path, *, seed: int) -> None:
    pil.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    """Two directories with a table each; both call their picture a.png, and it is another one."""
    found = []
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "a.png", seed=number)
        found.append(tmp_path / name / "train.csv")
        found[-1].write_text(f"url,query,annotation\na.png,what,answer {number}\n{tmp_path}/one/a.png,what,again {number}\n")
    return found


def test_all_tables_are_used_in_order_and_each_finds_its_own_images(tables: list[Path]) -> None:
    index = build_index(tables)
    assert [row.annotation for row in index.rows] == ["answer 0", "again 0", "answer 1", "again 1"]
    assert index.row_image == (0, 0, 1, 0) and index.images == (tables[0].with_name("a.png"), tables[1].with_name("a.png"))
    assert [row.annotation for row in build_index(tables[::-1]).rows] == ["answer 1", "again 1", "answer 0", "again 0"]


def test_an_image_of_any_of_them_can_be_found_again(tables: list[Path]) -> None:
    save(tables[1].with_name("b.png"), seed=3)
    assert resolve_in("b.png", tables) == tables[1].with_name("b.png") and resolve_in("a.png", tables) == tables[0].with_name("a.png")
    with pytest.raises(BadInput, match=r"nowhere\.png: no such file below .*two"):
        resolve_in("nowhere.png", tables)


def test_problems_are_named_by_their_file_and_counted_over_all(tables: list[Path]) -> None:
    tables[1].write_text("url,query,annotation\nnowhere.png,what,a\na.png,,b\n")
    with pytest.raises(BadInput) as caught:
        build_index(tables)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tables[1]}: 2 of 4 rows cannot be used (max_bad_frac is 0):"
    assert lines[1].startswith(f"{tables[1]}:2:url: nowhere.png: no such file") and lines[2] == f"{tables[1]}:3:query: the cell is empty"
    assert len(build_index(tables, max_bad_frac=0.5).rows) == 2


def test_a_table_without_a_usable_row_is_refused_beside_good_ones(tables: list[Path]) -> None:
    tables[1].write_text("picture,query,annotation\na.png,what,a\n")
    with pytest.raises(BadInput, match=r"two/train\.csv:1:url: the column is missing"):
        build_index(tables, max_bad_frac=1)


@pytest.mark.parametrize("value", ["a.csv,b.csv", " a.csv , b.csv ,", ["a.csv", "b.csv"], ("a.csv", "b.csv")])
def test_a_terminal_joins_tables_by_commas_and_json_lists_them(value: object) -> None:
    assert parse({"csv_train": value}).csvs("train") == (Path("a.csv"), Path("b.csv"))


@pytest.mark.parametrize("value", [None, "", [], ()])
def test_no_table_means_the_one_of_the_data_directory(value: object) -> None:
    """A config that was stored before a split could have several tables says null, or one path."""
    assert parse({"csv_val": value, "data_dir": "there"}).csvs("valid") == (Path("there/valid.csv"),)
    assert parse({"csv_val": "one.csv"}).csvs("valid") == (Path("one.csv"),)


def read(tables: list[Path]) -> str:
    return fingerprint(tables, build_index(tables)).sha256


def test_a_fingerprint_knows_words_pictures_and_order_and_no_places(tables: list[Path], tmp_path: Path) -> None:
    for table in tables:
        table.write_text("url,query,annotation\na.png,what,a\n")
    before = read(tables)
    assert read(tables) == before
    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    assert read([tmp_path / "moved" / "train.csv", tables[1]]) == before, "the same files elsewhere"
    assert read(tables[::-1]) != before
    tables[0].write_text("url,query,annotation\na.png,what,b\n")
    worded = read(tables)
    save(tables[1].with_name("a.png"), seed=7)
    assert len({before, worded, read(tables)}) == 3


def test_a_run_keeps_what_it_has_learned_from_and_goes_on_with_nothing_else(demo_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(demo_data, data)
    two = [str(data / "train.csv"), str(data / "test.csv")]
    short = {"finetune": {"max_steps": 2, "batch_size": 4, "save_every_steps": 1}}
    config: RunConfig = parse(
        merge(PRESETS["demo"], {"csv_train": two, "csv_val": str(data / "valid.csv"), "cache_dir": str(tmp_path / "cache"), "stages": short})
    )
    train_stage(StageJob(config, Stage.finetune, tmp_path / "run"), StopRequest(tmp_path / "run"))
    kept = json.loads((tmp_path / "run" / "data.json").read_text())["splits"]
    assert (kept["train"]["images"], list(kept["train"]["tables"])) == (46, two)
    assert kept["valid"]["sha256"] == read([data / "valid.csv"])
    said = [event.text for _, event in events.read(tmp_path / "run" / events.EVENTS_FILE) if isinstance(event, Note)]
    assert any(kept["train"]["sha256"] in text and "46 panoramas" in text for text in said)

    with (data / "test.csv").open("a") as file:
        file.write(f"{next((data / 'images').iterdir())},one more,yes\n")
    again = tmp_path / "again"
    with pytest.raises(BadInput, match="cannot be resumed with other data: tables or images of train are not those that it has learned from"):
        train_stage(StageJob(config, Stage.finetune, again, resume=tmp_path / "run" / "checkpoints" / "step=000001.ckpt"), StopRequest(again))


def test_a_training_from_before_fingerprints_is_not_said_to_have_changed(tables: list[Path], tmp_path: Path) -> None:
    now = {"train": fingerprint(tables, build_index(tables))}
    assert changed(tmp_path, now) == []
    write_fingerprints(tmp_path, now)
    assert changed(tmp_path, now) == []
