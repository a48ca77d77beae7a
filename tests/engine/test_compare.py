"""Evaluations side by side: how sure a difference is, who wins, what cannot be compared, and the demo's promises."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panollava.errors import BadInput
from panollava.metrics.bootstrap import Statistic, draws, holm, intervals, p_values, spans
from panollava.metrics.captions import METRICS, Condition, Prediction, score
from panollava.metrics.compare import Comparison, compare, compare_directories
from panollava.metrics.gates import BLIND, FIGURES, Gate, Grounded, demo_gates
from panollava.metrics.grounding import FigureScore
from panollava.metrics.ngrams import Floats
from panollava.metrics.report import read_report, report, scores
from panollava.metrics.table import rows

COLOURS = {"colour": ["red", "blue"]}


def mean_of(values: Floats) -> Statistic:
    return lambda weights: weights @ values[:, None] / weights.sum(axis=1, keepdims=True)


def test_an_interval_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    statistic = mean_of(np.random.default_rng(0).normal(size=50))
    first, again, other = (intervals(statistic, 50, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_an_interval_is_as_wide_as_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(size=400)
    (interval,) = intervals(mean_of(values), 400)
    half = 1.96 * values.std() / np.sqrt(400)
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)


@given(st.floats(-5, 5), st.integers(1, 30), st.integers(1, 250))
def test_what_does_not_vary_has_no_width(value: float, questions: int, resamples: int) -> None:
    (interval,) = intervals(mean_of(np.full(questions, value)), questions, resamples=resamples)
    assert (interval.low, interval.high) == pytest.approx((value, value))


def test_a_paired_difference_is_surer_than_either_score() -> None:
    random = np.random.default_rng(0)
    base = random.normal(size=200)
    ours = base + 0.1 + random.normal(scale=0.01, size=200)
    (own,) = intervals(mean_of(ours), 200)
    (difference,) = spans(draws(mean_of(ours), 200) - draws(mean_of(base), 200))
    assert own.low < 0.1 < own.high
    assert 0.09 < difference.low < difference.high < 0.11


def test_a_draw_with_nothing_to_measure_is_left_out() -> None:
    def only_the_first(weights: Floats) -> Floats:
        return np.where(weights[:, :1] > 0, 0.5, np.nan)

    (interval,) = intervals(only_the_first, 5)
    assert (interval.low, interval.high) == (0.5, 0.5)


def test_a_difference_is_sure_by_its_p_value_when_its_interval_leaves_0_out() -> None:
    sure, unsure = (np.random.default_rng(0).normal(mean, 1, size=(9999, 1)) for mean in (2.5, 1.5))
    for drawn in (sure, unsure):
        (interval,) = spans(drawn)
        assert (p_values(drawn)[0] < 0.05) == (not interval.low <= 0 <= interval.high)
    assert p_values(np.ones((9999, 1)))[0] == 2 / 10_000
    assert p_values(np.zeros((9999, 1)))[0] == 1


def test_holm_makes_each_p_value_answer_for_all_of_them() -> None:
    # The example of R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.9])) == pytest.approx([1, 1])


def test_one_small_difference_among_many_does_not_survive_holm() -> None:
    base = evaluation(*["a door"] * 12, *["a room"] * 12)
    other = evaluation(*["a door"] * 6, *["a red circle"] * 6, *["a room"] * 12)
    measure = compare([("base", base), ("other", other)]).evaluations[1].metrics["rouge_l"]
    assert measure.difference is not None
    assert measure.difference.p < measure.difference.p_holm <= 12 * measure.difference.p


def test_what_answers_are_like_is_compared_where_all_evaluations_know_it() -> None:
    base = [each.model_copy(update={"truncated": False}) for each in evaluation("a room", "a room", "a door")]
    other = [each.model_copy(update={"truncated": number == 0}) for number, each in enumerate(evaluation("a room", "a door", ""))]
    traits = compare([("base", base), ("other", other)]).evaluations[1].traits
    assert {name: round(measure.value, 3) for name, measure in traits.items()} == {
        "length_ratio": round(4 / 15, 3),
        "distinct_2": 1,
        "duplicate_rate": 0,
        "blank_rate": 0.333,
        "truncated_rate": 0.333,
    }
    assert traits["duplicate_rate"].difference is not None and traits["truncated_rate"].difference is not None
    assert traits["duplicate_rate"].difference.value == pytest.approx(-1 / 3)
    assert "truncated_rate" not in compare([("base", evaluation("a")), ("other", evaluation("b"))]).evaluations[1].traits
    older = compare([("old", evaluation("a room", "a room", "a door")), ("other", other)]).evaluations[1].traits["truncated_rate"]
    assert older.difference is None


def evaluation(*said: str, condition: Condition = "image", colours: str = "", seam: tuple[int, ...] = ()) -> list[Prediction]:
    """Answers to questions 0, 1, ...; `colours` gives the ground truth, r or b a question."""
    truth = [{"colour": "red" if letter == "r" else "blue"} for letter in colours]
    return [
        Prediction(
            url=f"{number}.jpg",
            query="what is there",
            references=["a red circle behind you", f"number {number} of all the things"],
            prediction=text,
            condition=condition,
            kind="what",
            expect=truth[number] if truth else None,
            seam=number in seam,
        )
        for number, text in enumerate(said)
    ]


def test_scores_and_differences_stand_side_by_side() -> None:
    base, better = evaluation("a room", "a circle", "behind"), evaluation("a red circle", "a circle behind you", "behind")
    result = compare([("base", base), ("better", better)])
    first, second = result.evaluations
    assert (result.base, result.questions, first.label, second.label) == (0, 3, "base", "better")
    for metric in METRICS:
        measure = second.metrics[metric]
        assert measure.value == getattr(score(better), metric)
        assert measure.n == 3
        assert measure.interval.low <= measure.value <= measure.interval.high
        assert measure.difference is not None
        assert measure.difference.value == pytest.approx(getattr(score(better), metric) - getattr(score(base), metric))
        assert first.metrics[metric].difference is None
    assert first.duel is None


def test_an_evaluation_differs_from_itself_by_nothing_for_certain() -> None:
    answers = evaluation("a room", "a red circle", "behind you")
    same = compare([("one", answers), ("two", list(reversed(answers)))]).evaluations[1]
    for measure in same.metrics.values():
        assert measure.difference is not None
        assert (measure.difference.value, measure.difference.interval.low, measure.difference.interval.high) == (0, 0, 0)
    assert same.duel is not None
    assert (same.duel.win, same.duel.tie, same.duel.loss) == (0, 3, 0)


def test_any_evaluation_can_be_the_base() -> None:
    two = [("one", evaluation("a room", "a door")), ("two", evaluation("a red circle", "a door"))]
    forward, backward = (compare(two, base).evaluations[1 - base].metrics["rouge_l"].difference for base in (0, 1))
    assert forward is not None and backward is not None
    assert forward.value == pytest.approx(-backward.value)
    assert forward.interval.low == pytest.approx(-backward.interval.high)


def test_without_ground_truth_the_better_cider_wins_a_question() -> None:
    base = evaluation("number 0", "a room", "a room")
    other = evaluation("a room", "number 1", "a room")
    duel = compare([("base", base), ("other", other)]).evaluations[1].duel
    assert duel is not None
    assert (duel.by, duel.win, duel.tie, duel.loss) == ("cider", 1, 1, 1)


def test_with_ground_truth_the_exact_answer_wins_a_question() -> None:
    base = evaluation("red", "red", "a lovely blue thing", "red", colours="rbbr")
    other = evaluation("red", "blue", "red", "blue and red", colours="rbbr")
    first, second = compare([("base", base), ("other", other)], figures=COLOURS).evaluations
    assert second.duel is not None
    assert (second.duel.by, second.duel.win, second.duel.tie, second.duel.loss) == ("grounding", 1, 1, 2)
    assert (first.grounding["colour"].value, second.grounding["colour"].value, second.grounding["colour"].n) == (0.75, 0.5, 4)
    difference = second.grounding["colour"].difference
    assert difference is not None
    assert difference.value == -0.25
    assert difference.interval.low < -0.25 < difference.interval.high


def test_the_seam_is_compared_where_some_objects_lie_on_it() -> None:
    whole, split = (evaluation("red", "red", "red", "blue", colours="rrbb", seam=seam) for seam in ((), (0, 3)))
    assert list(compare([("a", whole), ("b", whole)], figures=COLOURS).evaluations[0].grounding) == ["colour"]
    grounding = compare([("a", split), ("b", split)], figures=COLOURS).evaluations[0].grounding
    assert {name: (measure.value, measure.n) for name, measure in grounding.items()} == {
        "colour": (0.75, 4),
        "colour, seam": (1, 2),
        "colour, elsewhere": (0.5, 2),
    }


def test_controls_stand_beside_and_are_not_compared() -> None:
    base = evaluation("red", "blue", colours="rb")
    controlled = [*base, *evaluation("blue", condition="blank", colours="r")]
    reports = [report(each, COLOURS) for each in (base, controlled)]
    first, second = compare([("base", base), ("controlled", controlled)], figures=COLOURS).with_controls(reports).evaluations
    assert first.controls.captions == {}
    assert second.metrics["cider"].n == 2
    assert second.controls == scores(controlled[2:], COLOURS)
    assert second.controls.grounding["blank"]["colour"].accuracy == 0


def test_other_questions_are_refused_with_their_number_and_an_example() -> None:
    with pytest.raises(BadInput, match=r"long and short differ in 1 questions; for example, only long answers 'what is there' of 2\.jpg"):
        compare([("short", evaluation("a", "b")), ("long", evaluation("a", "b", "c"))])


def test_other_references_or_ground_truth_are_refused() -> None:
    base = evaluation("red", "blue", colours="rb")
    with pytest.raises(BadInput, match=r"other references or ground truth for 1 questions; for example 'what is there' of 1\.jpg"):
        compare([("base", base), ("other", evaluation("red", "blue", colours="rr"))])
    changed = [base[0].model_copy(update={"references": ["a red circle behind you"]}), base[1]]
    with pytest.raises(BadInput, match=r"for 1 questions; for example 'what is there' of 0\.jpg"):
        compare([("base", base), ("other", changed)])


def seen(predictions: list[Prediction], image_sha256: str) -> list[Prediction]:
    """The same answers, given of image files with this checksum."""
    return [each.model_copy(update={"image_sha256": image_sha256}) for each in predictions]


def test_answers_of_other_images_are_refused_though_the_words_are_the_same() -> None:
    one, other = evaluation("red", "blue"), evaluation("red", "blue")
    with pytest.raises(BadInput, match=r"b and a were asked of other images in 2 questions: the file of 0\.jpg, for example, has been changed"):
        compare([("a", seen(one, "before")), ("b", seen(other, "after"))])
    assert compare([("a", seen(one, "same")), ("b", seen(other, "same"))]).warnings == []


def test_an_evaluation_that_does_not_say_of_which_images_it_is_is_compared_with_a_warning() -> None:
    old, new = evaluation("red", "blue"), seen(evaluation("red", "red"), "known")
    assert compare([("old", old), ("new", new)]).warnings == [
        "old does not say of which image files its answers are; only addresses, questions and references are known to be the same."
    ]
    assert compare([("old", old), ("older", old)]).warnings == [], "what both lack makes no difference between them"


def test_what_cannot_be_compared_is_refused() -> None:
    answers = evaluation("a", "b")
    with pytest.raises(BadInput, match="two evaluations or more; this is 1"):
        compare([("alone", answers)])
    with pytest.raises(BadInput, match="base is 2, but the evaluations are numbered 0 to 1"):
        compare([("a", answers), ("b", answers)], base=2)
    with pytest.raises(BadInput, match="blind has no answers to the image itself"):
        compare([("a", answers), ("blind", evaluation("a", "b", condition="blank"))])
    with pytest.raises(BadInput, match="answered once"):
        compare([("a", answers), ("b", answers * 2)])


def test_a_comparison_survives_json() -> None:
    base = evaluation("red", "blue", colours="rb", seam=(1,))
    result = compare([("a", base), ("b", [*base, *evaluation("red", "red", condition="rolled", colours="rb")])], figures=COLOURS)
    assert Comparison.model_validate_json(result.model_dump_json()) == result


def written(directory: Path, predictions: list[Prediction]) -> Path:
    """A directory as `evaluate` leaves it."""
    directory.mkdir()
    (directory / "predictions.jsonl").write_text("".join(each.model_dump_json(exclude_none=True) + "\n" for each in predictions))
    metrics = report(predictions, COLOURS).model_dump(mode="json") | {"chance": {"colour": 0.5}, "config": {"limit": 2}}
    (directory / "metrics.json").write_text(json.dumps(metrics))
    return directory


def test_a_report_comes_back_from_its_file(tmp_path: Path) -> None:
    predictions = evaluation("red", "blue", colours="rb")
    read = read_report(written(tmp_path / "one", predictions))
    assert read == report(predictions, COLOURS).model_copy(update={"chance": {"colour": 0.5}})
    assert read.grounding["image"]["colour"].accuracy == 1


def test_directories_are_compared_by_the_vocabulary_they_were_judged_by(tmp_path: Path) -> None:
    one, two = evaluation("red", "blue", colours="rb"), evaluation("red", "red", colours="rb")
    directories = [written(tmp_path / "one", one), written(tmp_path / "two", two)]
    labelled = [(str(directory), answers) for directory, answers in zip(directories, (one, two), strict=True)]
    assert compare_directories(directories, 1) == compare(labelled, 1, COLOURS)
    with pytest.raises(BadInput, match=r"gone/predictions\.jsonl: No such file"):
        compare_directories([directories[0], tmp_path / "gone"])
    with pytest.raises(BadInput, match="base is 2"):
        compare_directories(directories, 2)


def test_a_comparison_is_a_table_with_the_base_first() -> None:
    base = evaluation("red", "red", colours="rb")
    other = [*evaluation("red", "blue", colours="rb"), *evaluation("red", condition="blank", colours="r")]
    compared = compare([("other", other), ("base", base), ("third", base)], base=1, figures=COLOURS)
    table = rows(compared.with_controls([report(other, COLOURS), None, None]))
    named = {row[0]: row[1:] for row in table}
    few = [f"{name} (n < 100)" if name == "cider" else name for name in METRICS]
    assert table[0] == ["", "n", "base (base)", "other", "difference", "95 %", "p (Holm)", "third", "difference", "95 %", "p (Holm)"]
    assert {len(row) for row in table} == {11}
    assert named["colour"][:4] == ["2", "0.5000", "1.0000", "+0.5000"]
    assert named["colour"][6:] == ["0.5000", "+0.0000", "+0.0000 to +0.0000", "1.0000"]
    assert named["win / tie / loss by grounding"] == ["2", "", "1 / 1 / 0", "", "", "", "0 / 2 / 0", "", "", ""]
    assert named["blank: colour"] == ["1", "-", "1.0000", "", "", "", "-", "", "", ""]
    assert list(named) == [
        "",
        *few,
        "length_ratio",
        "duplicate_rate",
        "blank_rate",
        "colour",
        "win / tie / loss by grounding",
        "blank: cider",
        "blank: colour",
    ]


CHANCE = {"colour": 0.17, "shape": 0.25, "direction": 0.25}


def figures(accuracy: float, *, n: int = 800, seam: float | None = None) -> dict[str, FigureScore]:
    """The same accuracy for every figure, 100 of its objects on the seam."""
    each = FigureScore(
        n=n, accuracy=accuracy, seam_n=100, seam_accuracy=accuracy if seam is None else seam, elsewhere_n=n - 100, elsewhere_accuracy=accuracy
    )
    return dict.fromkeys(FIGURES, each)


def looking(**changed: dict[str, FigureScore]) -> Grounded:
    """Scores of a model that keeps every promise, with some conditions changed."""
    kept = {"image": figures(0.98), "rolled": figures(0.97), "blank": figures(0.0), "shuffled": figures(0.2), "untrained": figures(0.27)}
    return {**kept, **changed}  # type: ignore[dict-item]


def broken(gates: list[Gate]) -> set[str]:
    """The promises that are not kept, without the figure's name."""
    assert {gate.name.split(":")[0] for gate in gates} == set(FIGURES)
    return {gate.name.split(": ")[1] for gate in gates if not gate.ok}


def test_a_model_that_looks_keeps_every_promise() -> None:
    gates = demo_gates(looking(), looking(), CHANCE)
    assert broken(gates) == set()
    assert len(gates) == 8 * len(FIGURES)
    assert all(gate.n == 800 for gate in gates if "seam" not in gate.name)


@pytest.mark.parametrize(
    ("changed", "promise"),
    [
        ({"rolled": figures(0.98, n=499)}, "questions"),
        ({"image": figures(0.89), "rolled": figures(0.89)}, "right after the chain"),
        ({"blank": figures(0.36)}, "right by luck, blank"),
        ({"shuffled": figures(0.36)}, "right by luck, shuffled"),
        ({"untrained": figures(0.36)}, "right by luck, untrained"),
        ({"image": figures(0.98, seam=0.92)}, "seam against elsewhere"),
        ({"rolled": figures(0.95)}, "rolled by 90 degrees against not"),
    ],
)
def test_a_broken_promise_is_the_only_one_flagged(changed: dict[str, dict[str, FigureScore]], promise: str) -> None:
    before = figures(min(0.98, *(each.accuracy or 0 for each in changed.get("image", figures(0.98)).values())))
    assert broken(demo_gates({"image": before}, looking(**changed), CHANCE)) == {promise}


def test_finetune_may_lose_a_little_and_no_more() -> None:
    for lost, expected in ((0.02, set()), (0.03, {"lost by finetune"})):
        after = looking(image=figures(0.95), rolled=figures(0.95))
        assert broken(demo_gates({"image": figures(0.95 + lost)}, after, CHANCE)) == expected


def test_bounds_are_met_exactly() -> None:
    after = looking(image=figures(1.0, n=500, seam=0.95), rolled=figures(0.98, n=500), blank=figures(0.27, n=500), untrained=figures(0.25))
    assert broken(demo_gates({"image": figures(1.0)}, after, CHANCE)) == set()


def test_what_was_not_measured_is_not_promised() -> None:
    after = {"image": figures(0.98)}
    missing = {"questions", "rolled by 90 degrees against not", *(f"right by luck, {condition}" for condition in BLIND)}
    assert broken(demo_gates(looking(), after, CHANCE)) == missing  # type: ignore[arg-type]
    assert broken(demo_gates(looking(), looking(), {})) == {f"right by luck, {condition}" for condition in BLIND}
    assert "right after the chain" in broken(demo_gates(looking(), {}, CHANCE))
