"""Exact checks of answers against ground truth: what counts as right, what guessing would score, how directions turn."""

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panollava.errors import BadInput
from panollava.metrics.captions import Prediction
from panollava.metrics.grounding import Truth, chance, found, read_grounding, read_truth, score, turn

TURN = ["in front", "on the right", "behind", "on the left"]
FIGURES = {"colour": ["red", "blue", "white"], "shape": ["circle", "square", "cross"], "direction": TURN}


numbers = count()


def answer(
    said: str, expect: dict[str, str] | None, *, kind: str = "what", references: Sequence[str] = ("see the truth",), seam: bool = False
) -> Prediction:
    return Prediction(url=f"{next(numbers)}.jpg", query="q", references=list(references), prediction=said, kind=kind, expect=expect, seam=seam)


def truth(template: str, number: int = 0, **expect: str) -> Truth:
    return Truth(url=f"{number}.jpg", query=template, kind="what", template=template, expect=expect, seam=False)


def accuracy(said: str, figure: str, word: str) -> float | None:
    return score([answer(said, {figure: word})], FIGURES)[figure].accuracy


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("a red circle", 1),
        ("A RED circle", 1),
        ("red red red", 1),
        ("a blue circle", 0),
        ("a red circle and a blue square", 0),  # naming every colour is no answer
        ("a circle", 0),
        ("a bored reddish circle", 0),
        ("", 0),
        ("a ſquare red İn ıt", 1),  # letters whose lower case is longer, or that only look alike
    ],
)
def test_a_figure_is_right_when_exactly_the_expected_word_is_named(said: str, right: int) -> None:
    assert accuracy(said, "colour", "red") == right


def test_a_phrase_of_several_words_is_found_across_spaces_and_not_inside_words() -> None:
    assert accuracy("it is on  the right", "direction", "on the right") == 1
    assert accuracy("it is upon the right", "direction", "on the right") == 0
    assert accuracy("it goes across", "shape", "cross") == 0


def test_the_longest_phrase_is_found_first() -> None:
    assert found("it is in front right", ["in front", "in front right"]) == {"in front right"}
    assert found("light blue and blue", ["blue", "light blue"]) == {"light blue", "blue"}


def test_each_figure_is_counted_apart_and_the_seam_beside_the_rest() -> None:
    scores = score(
        [
            answer("a red circle", {"colour": "red", "shape": "circle"}, seam=True),
            answer("a red cross", {"colour": "red", "shape": "circle"}, seam=True),
            answer("a blue cross", {"colour": "red", "shape": "cross"}),
            answer("behind", {"direction": "behind"}, kind="where"),
        ],
        FIGURES,
    )
    colour, shape, direction = scores["colour"], scores["shape"], scores["direction"]
    assert (colour.n, colour.accuracy, colour.seam_n, colour.seam_accuracy, colour.elsewhere_n, colour.elsewhere_accuracy) == (3, 2 / 3, 2, 1, 1, 0)
    assert (shape.accuracy, shape.seam_accuracy, shape.elsewhere_accuracy) == (2 / 3, 0.5, 1)
    assert (direction.n, direction.accuracy, direction.seam_n, direction.seam_accuracy) == (1, 1, 0, None)


def test_an_empty_place_is_a_figure_of_its_own() -> None:
    said = ["nothing", "i see nothing", "a red circle", "nothing red", ""]
    scores = score([*(answer(each, {}, references=["nothing", "there is nothing"]) for each in said), answer("nothing", {"colour": "red"})], FIGURES)
    assert (scores["nothing"].n, scores["nothing"].accuracy) == (5, 2 / 5)
    assert (scores["colour"].n, scores["colour"].accuracy) == (1, 0)


def test_a_question_that_expects_no_figure_and_not_nothing_is_not_judged() -> None:
    overview = answer("a red circle behind", {}, kind="overview", references=["a red circle behind"])
    unknown = answer("a room", None)
    assert score([overview, unknown], FIGURES) == {}


def test_a_word_outside_the_vocabulary_is_refused_because_nobody_could_be_right() -> None:
    with pytest.raises(BadInput, match="expects colour 'mauve', which is not among red, blue, white"):
        score([answer("mauve", {"colour": "mauve"})], FIGURES)
    with pytest.raises(BadInput, match="expects a 'size'; the vocabulary has colour, shape, direction"):
        score([answer("big", {"size": "big"})], FIGURES)


def test_chance_is_the_best_constant_answer_of_training_scored_on_test() -> None:
    train = [
        *(truth("what is behind", colour=colour) for colour in ["red", "red", "blue"]),
        *(truth("what is in front", colour=colour) for colour in ["white", "blue", "white"]),
        *(truth("where is it", direction=direction) for direction in ["behind", "behind", "in front"]),
    ]
    test = [
        *(truth("what is behind", colour=colour) for colour in ["red", "blue", "blue", "blue"]),
        *(truth("what is in front", colour=colour) for colour in ["white", "white"]),
        *(truth("where is it", direction=direction) for direction in ["behind", "in front"]),
        truth("overview"),
    ]
    assert chance(train, test, FIGURES) == {"colour": 3 / 6, "direction": 1 / 2}


def test_chance_is_unknown_for_a_template_that_training_lacks() -> None:
    with pytest.raises(BadInput, match="no question 'what is behind' about colour"):
        chance([truth("what is in front", colour="red")], [truth("what is behind", colour="red")], FIGURES)


def test_directions_turn_all_at_once() -> None:
    assert turn("a red circle in front , a blue cross behind", TURN) == "a red circle on the right , a blue cross on the left"
    assert turn("what is on the left", TURN) == "what is in front"
    assert turn("in the front row, behindhand", TURN) == "in the front row, behindhand"
    assert turn("Behind, İn  front", TURN) == "on the left, on the right"
    assert turn("nothing to turn in front", []) == "nothing to turn in front"


pieces = st.sampled_from([*TURN, "a", "red circle", ",", "and", "the", "on", "in", "front row", "is"])


@given(st.lists(pieces, max_size=12).map(" ".join))
def test_four_quarter_turns_lead_back(text: str) -> None:
    turned = text
    for _ in range(4):
        turned = turn(turned, TURN)
    assert turned == text


@given(st.lists(pieces, max_size=12).map(" ".join))
def test_a_turn_takes_the_found_directions_to_the_next_ones(text: str) -> None:
    assert found(turn(text, TURN), TURN) == {turn(direction, TURN) for direction in found(text, TURN)}


def test_ground_truth_comes_from_its_files(tmp_path: Path) -> None:
    (tmp_path / "grounding.json").write_text(json.dumps({"figures": FIGURES, "turn": TURN}))
    written = [truth("what is behind", number, colour="red") for number in range(3)]
    (tmp_path / "test.truth.jsonl").write_text("".join(each.model_dump_json() + "\n" for each in written))
    vocabulary = read_grounding(tmp_path / "grounding.json")
    assert (vocabulary.figures, vocabulary.turn) == (FIGURES, TURN)
    assert read_truth(tmp_path / "test.truth.jsonl", vocabulary.figures) == written


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[", "Invalid JSON"),
        ({"figures": {}}, "figures: "),
        ({"figures": {"colour": ["red", "Red"]}}, "figures: colour has an empty or a repeated phrase"),
        ({"figures": {"nothing": ["nothing"]}}, "figures: 'nothing' is the name"),
        ({"figures": {"colour": ["red"]}, "turn": ["left", "right"]}, "turn: needs the 4 directions of a full turn, not 2"),
    ],
)
def test_a_bad_vocabulary_is_refused_with_its_field(tmp_path: Path, content: Any, complaint: str) -> None:
    file = tmp_path / "grounding.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BadInput) as refused:
        read_grounding(file)
    assert f"{file}: {complaint}" in str(refused.value)


def test_a_bad_line_of_ground_truth_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "test.truth.jsonl"
    file.write_text(truth("q", colour="red").model_dump_json() + '\n{"url": "1.jpg"}\n')
    with pytest.raises(BadInput, match=r"test\.truth\.jsonl: line 2: query: Field required"):
        read_truth(file, FIGURES)
    file.write_text(truth("what is behind", colour="mauve").model_dump_json() + "\n")
    with pytest.raises(BadInput, match=r"test\.truth\.jsonl: 'what is behind' of 0\.jpg expects colour 'mauve'"):
        read_truth(file, FIGURES)
