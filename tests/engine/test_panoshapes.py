"""The demo data: shapes where the truth says, questions that can be answered, splits that hold what the figures need, and whole or no directories."""

import csv
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panollava.data.images import load_panorama
from panollava.data.make_demo import make_demo
from panollava.data.panoshapes import (
    BEHIND,
    COLOURS,
    DIRECTIONS,
    MIX,
    SHAPES,
    Object,
    Renderer,
    every_question,
    overview,
    random_question,
    sample_scene,
    what,
    where,
)
from panollava.errors import BadInput
from panollava.views import Cutter, View

RED = Object(0, "red", "circle", yaw=0, pitch=0, size=0.35)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "demo"
    make_demo(directory, train=12, valid=4, test=6)
    return directory


def truth(directory: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / f"{split}.truth.jsonl").read_text().splitlines()]


def rows(directory: Path, split: str) -> list[dict[str, str]]:
    with (directory / f"{split}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_has_its_colour_in_the_middle_of_its_direction(colour: str, shape: str) -> None:
    rng = np.random.default_rng(0)
    for sector in range(4):
        thing = replace(RED, sector=sector, colour=colour, shape=shape, yaw=(sector * 90 + 10) % 360, pitch=-12)
        panorama = Renderer(64)([thing], rng)
        centre = Cutter((View(thing.yaw, thing.pitch, 5),), 2)(panorama).mean((0, 1, 2)) / 255
        assert min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) - centre).sum()) == colour


def test_a_shape_keeps_its_form_wherever_it_is() -> None:
    """The same object seen straight on looks the same in front, at an angle, and across the seam."""
    draw, looks = Renderer(256), []
    for yaw, pitch in ((0, 0), (100, 15), (180, -15), (190, 10)):
        panorama = draw([replace(RED, shape="triangle", yaw=yaw, pitch=pitch)], np.random.default_rng(1))
        view = Cutter((View(yaw, pitch, 60),), 32)(panorama)[0].astype(int)
        looks.append(view[..., 0] - view[..., 2] > 80)
    for look in looks:
        assert 60 < look.sum() < 400
        assert (look ^ looks[0]).sum() < 0.1 * looks[0].sum()


def test_the_background_has_no_seam() -> None:
    panorama = Renderer(128)([], np.random.default_rng(2)).astype(float)
    across, inside = np.abs(panorama[:, 0] - panorama[:, -1]).mean(), np.abs(np.diff(panorama, axis=1)).mean()
    assert across < 1.2 * inside


def test_objects_stay_in_their_sector_and_differ_in_colour() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        scene = sample_scene(rng, p_object=0.8, p_seam=0.5)
        assert 1 <= len(scene) <= 4
        assert len({thing.colour for thing in scene}) == len(scene)
        assert [thing.sector for thing in scene] == sorted({thing.sector for thing in scene})
        for thing in scene:
            assert abs((thing.yaw - 90 * thing.sector + 180) % 360 - 180) <= 25 and abs(thing.pitch) <= 15


def test_on_the_seam_means_that_the_seam_cuts_the_object() -> None:
    draw, rng = Renderer(128), np.random.default_rng(4)
    behind = replace(RED, sector=BEHIND, shape="square")
    for yaw in (166.0, 180.0, 194.0, 158.0, 202.0):
        thing = replace(behind, yaw=yaw)
        red = draw([thing], rng).astype(int)
        redness = (red[..., 0] - red[..., 2] > 80).any(axis=0)
        if thing.on_seam:
            assert redness[0] and redness[-1]
        else:
            assert not (redness[:3].any() and redness[-3:].any())
    assert replace(behind, yaw=180 + 0.79 * math.degrees(math.atan(0.35))).on_seam
    assert not replace(behind, yaw=180 + 0.81 * math.degrees(math.atan(0.35))).on_seam


def test_questions_have_three_wordings_and_say_what_a_right_answer_holds() -> None:
    rng = np.random.default_rng(5)
    blue = Object(BEHIND, "blue", "square", yaw=180, pitch=0, size=0.35)
    asked = what([RED, blue], BEHIND, rng)
    assert asked.references == ("a blue square", "there is a blue square", "i see a blue square")
    assert asked.expect == {"colour": "blue", "shape": "square"} and asked.seam
    assert asked.template.format(direction="behind") == asked.query
    empty = what([RED], BEHIND, rng)
    assert empty.references == ("nothing", "there is nothing", "i see nothing") and empty.expect == {} and not empty.seam
    placed = where(RED, rng)
    assert placed.references == ("in front", "it is in front", "the red circle is in front")
    assert placed.expect == {"direction": "in front"} and placed.template.format(object="red circle") == placed.query
    assert overview([RED, blue], rng).references == (
        "a red circle in front, a blue square behind",
        "there is a red circle in front and a blue square behind",
        "i see a red circle in front, a blue square behind",
    )


def test_every_reference_holds_the_expected_words_and_no_other_of_the_figure() -> None:
    rng = np.random.default_rng(6)
    words = {"colour": list(COLOURS), "shape": list(SHAPES), "direction": list(DIRECTIONS)}
    for _ in range(50):
        for question in every_question(sample_scene(rng), rng):
            for figure, right in question.expect.items():
                for reference in question.references:
                    assert [word for word in words[figure] if word in reference] == [right]


def test_random_questions_come_in_their_shares() -> None:
    rng = np.random.default_rng(7)
    kinds = Counter(random_question(sample_scene(rng), rng).kind for _ in range(2000))
    assert all(abs(kinds[kind] / 2000 - share) < 0.04 for kind, share in MIX.items())  # type: ignore[index]


def test_the_test_split_asks_over_500_questions_about_the_seam_in_every_figure() -> None:
    """On ten draws of 640 scenes, as the test split draws them; the directions stay balanced."""
    for seed in range(10):
        rng = np.random.default_rng([seed, 99])
        things = [thing for _ in range(640) for thing in sample_scene(rng, p_object=0.87, p_seam=0.9)]
        directions = Counter(thing.direction for thing in things)
        assert sum(thing.on_seam for thing in things) >= 500
        assert max(directions.values()) / min(directions.values()) < 1.15


def test_tables_and_truth_agree_question_by_question(demo: Path) -> None:
    for split, references, panoramas in (("train", 1, 12), ("valid", 3, 4), ("test", 3, 6)):
        asked = Counter((row["url"], row["query"]) for row in rows(demo, split))
        known = truth(demo, split)
        assert list(asked) == [(each["url"], each["query"]) for each in known]
        assert set(asked.values()) == {references}
        assert len({each["url"] for each in known}) == panoramas
        assert all(set(each) == {"url", "query", "kind", "template", "expect", "seam"} for each in known)
    assert len(rows(demo, "train")) == 12 * 4
    assert {each["kind"] for each in truth(demo, "test")} == {"what", "where", "overview"}


def test_a_panorama_rolled_right_by_90_degrees_moves_every_object_to_the_next_direction(demo: Path) -> None:
    turn = json.loads((demo / "grounding.json").read_text())["turn"]
    placed = [each for each in truth(demo, "test") if each["kind"] == "where"]
    for each in placed:
        panorama = load_panorama(demo / each["url"])
        colour = next(word for word in each["query"].split() if word in COLOURS)
        assert brightest(panorama, colour) == each["expect"]["direction"]
        rolled = np.roll(panorama, panorama.shape[1] // 4, axis=1)
        assert brightest(rolled, colour) == turn[(turn.index(each["expect"]["direction"]) + 1) % 4]


def brightest(panorama: Any, colour: str) -> str:
    """The direction whose view holds most pixels close to a colour."""
    views = Cutter(tuple(View(90 * sector, 0, 90) for sector in range(4)), 64)(panorama) / 255
    close = np.abs(views - np.array(COLOURS[colour]) * 0.92).max(axis=-1) < 0.12
    return DIRECTIONS[int(close.sum((1, 2)).argmax())]


def test_panoramas_are_whole_jpegs_of_512_by_256(demo: Path) -> None:
    images = sorted((demo / "images").iterdir())
    assert len(images) == 22
    assert all(load_panorama(image).shape == (256, 512, 3) for image in images)


def test_the_same_seed_makes_the_same_data_and_another_one_other_data(tmp_path: Path, demo: Path) -> None:
    make_demo(tmp_path / "same", train=12, valid=4, test=6)
    make_demo(tmp_path / "other", train=12, valid=4, test=6, seed=1)
    files = [path.relative_to(demo) for path in demo.rglob("*") if path.is_file()]
    assert all((tmp_path / "same" / file).read_bytes() == (demo / file).read_bytes() for file in files)
    assert (tmp_path / "other" / "train.csv").read_bytes() != (demo / "train.csv").read_bytes()


def test_splits_do_not_repeat_each_other(demo: Path) -> None:
    first = [(demo / f"images/{split}_00000.jpg").read_bytes() for split in ("train", "valid", "test")]
    assert len(set(first)) == 3


def test_an_interrupted_make_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", train=30, valid=4, test=6, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_panoramas(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    make_demo(tmp_path / "demo", train=2, valid=1, test=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_directory_of_ours_is_replaced_and_a_foreign_one_refused(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    directory.mkdir()
    make_demo(directory, train=3, valid=1, test=1)
    make_demo(directory, train=1, valid=1, test=1)
    assert len(list((directory / "images").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for foreign in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(BadInput, match="make-demo has not made"):
            make_demo(foreign, train=1, valid=1, test=1)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
