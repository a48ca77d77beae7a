"""A comparison question by question: scores, filters, words, and what is kept of files that were read."""

import os

import numpy as np
import pytest

from app.evaluations import chart, samples
from app.evaluations.samples import Compared, Filter, Metric
from panollava.errors import BadInput
from panollava.metrics.captions import Prediction
from panollava.metrics.report import report

QUESTIONS = [
    ("a.jpg", "What is ahead?", "a red cube stands ahead", "red"),
    ("b.jpg", "What is behind?", "a green ball lies behind", "green"),
    ("c.jpg", "Is it bright?", "the room is very bright today", None),
    ("d.jpg", "What is near?", "a blue cone stands near the door", "blue"),
]
FIGURES = {"colour": ["red", "green", "blue"]}
RIGHT = [reference for _, _, reference, _ in QUESTIONS]


def write(path, answers, questions=QUESTIONS):
    """Predictions in the order of the questions, and one of a control that nothing here may count."""
    lines = [prediction(url, query, reference, colour, answers[query]) for url, query, reference, colour in questions if query in answers]
    lines.append(prediction(*QUESTIONS[0][:3], "red", "a red cube stands ahead", condition="blank"))
    path.write_text("".join(line.model_dump_json() + "\n" for line in lines))
    return path


def prediction(url, query, reference, colour, text, condition="image"):
    expect = {"colour": colour} if colour else None
    return Prediction(url=url, query=query, references=[reference], prediction=text, condition=condition, expect=expect)


def said(*texts):
    return {query: text for (_, query, _, _), text in zip(QUESTIONS, texts, strict=True)}


@pytest.fixture
def compared(tmp_path):
    """One that is right about the first two questions, one about the second and third."""
    one = write(tmp_path / "one.jsonl", said(RIGHT[0], RIGHT[1], "no idea", "a red thing"))
    other = write(tmp_path / "other.jsonl", said("a green cube", RIGHT[1], RIGHT[2], "a red thing"), QUESTIONS[::-1])
    return Compared((("one", one), ("other", other)), 0, FIGURES)


def listed(compared, filter, metric=Metric.cider, words=""):
    return samples.listed(compared.board(), metric, 0, 1, filter, words)


def test_answers_of_all_stand_in_the_order_of_the_first_evaluation(compared):
    board = compared.board()
    assert [[each.query for each in answers] for answers in board.answers] == 2 * [[query for _, query, _, _ in QUESTIONS]]
    assert board.questions == 4
    assert board.scores[Metric.rouge_l][0, 0] == board.scores[Metric.rouge_l][1, 2] == 1


def test_a_question_is_grounded_when_every_figure_is_right_and_unjudged_without_ground_truth(compared):
    grounding = compared.board().scores[Metric.grounding]
    np.testing.assert_array_equal(grounding, [[1, 1, np.nan, 0], [0, 1, np.nan, 0]])


def test_questions_without_ground_truth_have_no_grounding(compared):
    board = Compared(compared.evaluations, 0, {}).board()
    assert list(board.scores) == [Metric.cider, Metric.rouge_l] and board.marks == []


@pytest.mark.parametrize(
    ("filter", "metric", "questions"),
    [
        (Filter.b_gt_a, Metric.cider, [2]),
        (Filter.a_gt_b, Metric.cider, [0]),
        (Filter.a_gt_b, Metric.grounding, [0]),
        (Filter.b_gt_a, Metric.grounding, []),
        (Filter.both_low, Metric.grounding, [3]),
        (Filter.both_low, Metric.rouge_l, [3]),
        (Filter.disagree, Metric.cider, [2, 0]),
        (Filter.all, Metric.cider, [0, 1, 2, 3]),
    ],
)
def test_a_filter_lists_what_it_says_the_most_telling_first(compared, filter, metric, questions):
    assert listed(compared, filter, metric) == questions


def test_words_are_looked_for_in_questions_references_and_every_answer(compared):
    assert listed(compared, Filter.all, words="DOOR") == [3]
    assert listed(compared, Filter.all, words="no idea") == [2]
    assert listed(compared, Filter.all, words="cube green") == [0]
    assert listed(compared, Filter.all, words="elephant") == []


def test_one_evaluation_alone_is_listed_by_its_own_score(compared):
    board = Compared(compared.evaluations[:1], 0, FIGURES).board()
    assert samples.listed(board, Metric.grounding, 0, None, Filter.b_gt_a) == [0, 1]
    assert samples.listed(board, Metric.grounding, 0, None, Filter.both_low) == [3]


def test_evaluations_of_other_questions_are_not_laid_side_by_side(compared, tmp_path):
    other = write(tmp_path / "less.jsonl", {QUESTIONS[0][1]: "a red cube"})
    with pytest.raises(BadInput, match="differ in 3 questions"):
        Compared((compared.evaluations[0], ("less", other)), 0, FIGURES).board()


def test_a_comparison_is_made_once_for_as_long_as_its_files_stay_the_same(compared):
    assert not compared.is_at_hand
    first = compared.comparison()
    assert compared.is_at_hand and compared.comparison() is first
    assert (first.questions, first.resamples) == (4, 10_000)
    path = compared.evaluations[1][1]
    write(path, said(*RIGHT))
    os.utime(path, ns=(1, 1))
    assert not compared.is_at_hand
    assert compared.comparison().evaluations[1].metrics["rouge_l"].value == 1


def test_the_comparison_agrees_with_the_figures_of_the_evaluations(compared):
    _, path = compared.evaluations[1]
    own = report(samples.sheet(path).answers, FIGURES)
    measured = compared.comparison().evaluations[1]
    assert measured.metrics["cider"].value == pytest.approx(own.captions["image"].cider)
    assert measured.grounding["colour"].value == own.grounding["image"]["colour"].accuracy


def test_a_file_of_predictions_that_is_gone_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.jsonl: No such file"):
        samples.sheet(tmp_path / "gone.jsonl")


def test_the_curve_is_sorted_counts_wins_and_leads_to_every_question_of_a_few():
    curve = chart.curve(np.array([0.0, -1.0, np.nan, 2.0, 0.5]))
    assert curve.order == [3, 4, 0, 1] and (curve.wins, curve.ties, curve.losses) == (2, 1, 1)
    assert [(target.question, target.rank) for target in curve.targets] == [(3, 1), (4, 2), (0, 3), (1, 4)]
    assert curve.spot(3) == (12.5, curve.y(2.0)) and curve.spot(2) is None
    assert 0 < curve.y(2.0) < curve.zero < curve.y(-1.0) < 100
    assert [tick.text for tick in curve.ticks] == ["−1", "0", "1", "2"]


def test_a_long_curve_has_few_points_and_few_places_to_click():
    curve = chart.curve(np.linspace(-1, 1, 5000))
    assert len(curve.targets) == 100 and curve.ahead.count("L") < 410
    assert sum(target.width for target in curve.targets) == pytest.approx(1000)


def test_where_nothing_is_judged_there_is_no_curve():
    assert chart.curve(np.array([np.nan, np.nan])) is None
