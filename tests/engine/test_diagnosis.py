"""What controls say of a model: whether answers change when they should, and what the right image is worth."""

import numpy as np
import pytest

from panollava.metrics.captions import Condition, Prediction
from panollava.metrics.report import Report, report
from panollava.metrics.table import report_rows

FIGURES = {"colour": ["red", "blue"], "direction": ["in front", "on the right", "behind", "on the left"]}
TURN = FIGURES["direction"]


def answers(condition: Condition, *said: str, queries: tuple[str, ...] = (), asked: bool = False, colours: str = "") -> list[Prediction]:
    queries = queries or tuple(f"what is number {number}" for number in range(len(said)))
    truth = [{"colour": "red" if letter == "r" else "blue"} for letter in colours] or [None] * len(said)
    return [
        Prediction(
            url=f"{number}.jpg", query=query, references=["a red door"], prediction=text, condition=condition,
            asked=query if asked else None, kind="what", expect=expect,
        )
        for number, (text, query, expect) in enumerate(zip(said, queries, truth, strict=True))
    ]  # fmt: skip


def of(*conditions: list[Prediction], turn: list[str] | None = None) -> Report:
    return report([each for condition in conditions for each in condition], FIGURES, turn, resamples=200)


def test_what_the_right_image_is_worth_is_the_score_with_it_minus_the_score_without() -> None:
    image = answers("image", "a red door", "a red door", "a blue door", "a red door", colours="rrbb")
    blank = answers("blank", "a red door", "nothing", "nothing", "nothing", colours="rrbb")
    diagnosis = of(image, blank).diagnoses["blank"]
    colour = diagnosis.image_minus["colour"]
    assert (colour.value, colour.n) == (3 / 4 - 1 / 4, 4)
    assert 0 <= colour.interval.low < colour.value < colour.interval.high <= 1
    assert diagnosis.agreement["same"].value == 1 / 4
    assert 1 / 4 <= diagnosis.agreement["likeness"].value < 1


def test_a_model_that_never_looks_gains_nothing_from_the_image_for_certain() -> None:
    image, shuffled = (answers(condition, "a red door", "a room", "", colours="rrb") for condition in ("image", "shuffled"))  # type: ignore[arg-type]
    diagnosis = of(image, shuffled).diagnoses["shuffled"]
    assert {(each.value, each.interval.low, each.interval.high) for each in diagnosis.image_minus.values()} == {(0, 0, 0)}
    assert (diagnosis.agreement["same"].value, diagnosis.agreement["likeness"].value) == (1, 1)


def test_the_order_in_which_a_control_was_asked_does_not_matter() -> None:
    image = answers("image", "a red door", "a room", "a blue wall", colours="rrb")
    blank = answers("blank", "a room", "a room", "a wall", colours="rrb")
    assert of(image, blank).diagnoses == of(image, blank[::-1]).diagnoses


def test_a_control_on_other_questions_is_scored_and_not_held_against_the_image() -> None:
    scored = of(answers("image", "a red door", "a room", colours="rr"), answers("blank", "a red door", colours="r"))
    assert scored.captions["blank"].groups == 1
    assert scored.diagnoses == {}


def test_a_rolled_panorama_moves_the_direction_words_of_answers() -> None:
    queries = ("where is the door", "what is behind", "what colour is the door")
    image = answers("image", "it is on the left", "a red door", "red", queries=queries)
    rolled = answers("rolled", "it is in front", "a red door", "blue", queries=queries, asked=True)
    agreement = of(image, rolled, turn=TURN).diagnoses["rolled"].agreement
    assert {name: (each.value, each.n) for name, each in agreement.items() if name.startswith("same")} == {
        "same": (2 / 3, 3),
        "same, no direction word": (0, 1),
        "same, direction word": (1, 2),
    }
    unmoved = answers("rolled", "it is on the left", "a red door", "red", queries=queries, asked=True)
    assert of(image, unmoved, turn=TURN).diagnoses["rolled"].agreement["same, direction word"].value == 1 / 2


def test_rotation_is_judged_without_any_truth_in_plain_english() -> None:
    queries = ("interior", "interior", "interior")
    image = answers("image", "a table in front of you", "a door to your left", "the left door", queries=queries)
    rolled = answers("rolled", "a table to your right", "a door in front of you", "the right door", queries=queries, asked=True)
    agreement = report([*image, *rolled], resamples=50).diagnoses["rolled"].agreement
    assert (agreement["same, direction word"].value, agreement["same, direction word"].n) == (pytest.approx(2 / 3), 3)
    assert "same, no direction word" not in agreement


def test_reworded_questions_of_older_evaluations_belong_to_no_question() -> None:
    image = answers("image", "a red door", "a room")
    assert of(image, answers("rolled", "a red door", "a room")).diagnoses == {}
    assert set(of(image, answers("query_swap", "a", "b", asked=True)).diagnoses) == {"query_swap"}


def test_a_report_from_before_diagnoses_is_read() -> None:
    now = of(answers("image", "a red door", "a room", colours="rr")).model_dump(mode="json")
    del now["diagnoses"]
    new = {"meteor_exact_stem", "length_ratio", "distinct_2", "duplicate_rate", "truncated_rate", "intervals"}
    now["captions"]["image"] = {name: value for name, value in now["captions"]["image"].items() if name not in new}
    for score in now["grounding"]["image"].values():
        for name in ("interval", "seam_interval", "elsewhere_interval"):
            del score[name]
    before = Report.model_validate(now)
    assert before.captions["image"].meteor_exact_stem is None
    assert [row[0] for row in report_rows(before)][:3] == ["", "bleu_1", "bleu_2"]


def test_every_score_of_a_report_has_an_interval_around_it() -> None:
    image = answers("image", "a red door", "a red wall and a door", "a blue door", "", colours="rrbb")
    scored = of([each.model_copy(update={"truncated": False, "seam": each.url < "2"}) for each in image])
    captions, colour = scored.captions["image"], scored.grounding["image"]["colour"]
    assert len(captions.intervals) == 12
    for name, interval in captions.intervals.items():
        assert interval.low <= getattr(captions, name) <= interval.high
    for interval, accuracy in ((colour.interval, colour.accuracy), (colour.seam_interval, colour.seam_accuracy)):
        assert interval is not None and accuracy is not None
        assert interval.low <= accuracy <= interval.high


def test_the_terminal_table_shows_intervals_and_what_the_controls_say() -> None:
    image, blank = answers("image", "a red door", "a room", colours="rr"), answers("blank", "a room", "a room", colours="rr")
    table = {row[0]: row[1:] for row in report_rows(of(image, blank))}
    assert table[""] == ["n", "image", "blank"]
    assert table["colour"] == ["2", "0.5000 (0.0000 to 1.0000)", "0.0000 (0.0000 to 0.0000)"]
    assert table["as to the image: same"] == ["2", "-", "0.5000 (0.0000 to 1.0000)"]
    assert table["image minus this: colour"] == ["2", "-", "+0.5000 (+0.0000 to +1.0000)"]
    assert "cider (n < 100)" in table and "cider" not in table


def test_repeated_answers_and_pairs_of_words_are_counted_once_over_all_answers() -> None:
    image = answers("image", "a red door", "a red door", "a red wall", "the end")
    captions = of(image).captions["image"]
    assert captions.duplicate_rate == 1 - 3 / 4
    assert captions.distinct_2 == pytest.approx(4 / 7)
    assert captions.length_ratio == 11 / 12
    assert np.isclose(captions.intervals["duplicate_rate"].high, 0.5, atol=0.1)
