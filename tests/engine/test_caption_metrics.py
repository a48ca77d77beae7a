"""Caption scores against pycocoevalcap's pure Python parts, and the words against its PTBTokenizer where there is a Java."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pycocoevalcap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from panollava.errors import BadInput
from panollava.metrics.captions import METRICS, Prediction, by_condition, read_predictions, samples, score
from panollava.metrics.tokens import tokenize

WORDS = ["a", "the", "red", "blue", "circle", "square", "room", "with", "two", "wooden", "doors", "in", "front", "behind"]


def answers(*pairs: tuple[str, list[str]], **fields: Any) -> list[Prediction]:
    """Predictions for questions 0, 1, ... from (prediction, [references]) pairs."""
    return [
        Prediction(url=f"{number}.jpg", query="interior", prediction=said, references=wanted, **fields) for number, (said, wanted) in enumerate(pairs)
    ]


def pycocoevalcap_scores(predictions: list[Prediction]) -> tuple[Any, Any, Any]:
    wanted = {number: [" ".join(tokenize(text)) for text in each.references] for number, each in enumerate(predictions)}
    said = {number: [" ".join(tokenize(each.prediction))] for number, each in enumerate(predictions)}
    bleu, _ = Bleu(4).compute_score(wanted, said, verbose=0)
    _, rouge = Rouge().compute_score(wanted, said)
    _, cider = Cider().compute_score(wanted, said)
    return bleu, rouge, cider


def assert_equal_to_pycocoevalcap(predictions: list[Prediction]) -> None:
    ours, each = score(predictions), samples(predictions)
    bleu, rouge, cider = pycocoevalcap_scores(predictions)
    assert [ours.bleu_1, ours.bleu_2, ours.bleu_3, ours.bleu_4] == pytest.approx(bleu, rel=0, abs=1e-9)
    np.testing.assert_allclose(each.rouge_l, rouge, rtol=0, atol=1e-9)
    np.testing.assert_allclose(each.cider, cider, rtol=0, atol=1e-9)
    assert (ours.rouge_l, ours.cider) == pytest.approx((np.mean(rouge), np.mean(cider)), rel=0, abs=1e-9)


def sentence(min_size: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(WORDS[:6]), min_size=min_size, max_size=9).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(sentence(0), st.lists(sentence(1), min_size=1, max_size=4)), min_size=1, max_size=6))
def test_scores_equal_pycocoevalcap_on_any_sentences(pairs: list[tuple[str, list[str]]]) -> None:
    assert_equal_to_pycocoevalcap(answers(*pairs))


def test_scores_equal_pycocoevalcap_on_a_split_of_captions() -> None:
    draw = random.Random(0)

    def caption() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 90)))

    # Some predictions repeat half of a reference, so that the long n-grams count too; one is longer than a machine word has bits.
    wanted = [[caption() for _ in range(draw.randint(1, 5))] for _ in range(300)]
    said = [references[0][: len(references[0]) // 2] + " " + caption() for references in wanted]
    assert_equal_to_pycocoevalcap(answers(*zip(said, wanted, strict=True)))


def test_cider_of_one_question_is_zero_even_when_perfect() -> None:
    assert score(answers(("a red circle in front", ["a red circle in front"]))).cider == 0


def test_perfect_answers_to_two_questions_score_ten_and_ones() -> None:
    scores = score(answers(("a red circle in front", ["a red circle in front"]), ("two wooden doors behind", ["two wooden doors behind"])))
    assert scores.cider == pytest.approx(10)
    assert [scores.bleu_1, scores.bleu_4, scores.rouge_l] == pytest.approx([1, 1, 1])


def test_an_empty_answer_counts_and_lowers_every_score() -> None:
    good = [("a red circle in front", ["a red circle in front"]), ("two wooden doors behind", ["two wooden doors behind"])]
    full, holed = score(answers(*good, ("the blue square left", ["the blue square left"]))), score(answers(*good, ("", ["the blue square left"])))
    assert all(getattr(holed, metric) < getattr(full, metric) for metric in METRICS)
    assert holed.groups == 3
    assert holed.blank_rate == pytest.approx(1 / 3)


def test_an_answer_of_punctuation_is_as_empty_as_none_and_nothing_at_all_scores_zero() -> None:
    scores = score(answers(("", ["a room"]), (" ... !", ["a door"])))
    assert scores.blank_rate == 1
    assert [getattr(scores, metric) for metric in METRICS] == [0] * 7


def test_an_empty_answer_to_an_empty_reference_is_not_right() -> None:
    assert score(answers(("", ["..."]), ("a room", ["a room"]))).rouge_l == 0.5


def test_scores_count_every_question_and_every_reference() -> None:
    scores = score(answers(("a room", ["a room", "the room"]), ("a door", ["a door"] * 3)))
    assert (scores.groups, scores.references, scores.mean_length) == (2, 5, 2)


@given(st.permutations(range(5)))
def test_the_order_of_the_questions_does_not_matter(order: list[int]) -> None:
    each = answers(*((" ".join(WORDS[k : k + 4]), [" ".join(WORDS[k : k + 5]), "a red room"]) for k in range(5)))
    shuffled = score([each[k] for k in order])
    assert [getattr(shuffled, metric) for metric in METRICS] == pytest.approx([getattr(score(each), metric) for metric in METRICS])


def test_a_question_drawn_twice_weighs_as_two_questions() -> None:
    each = samples(answers(("a red circle in front", ["a red circle behind"]), ("two doors", ["two wooden doors"]), ("a room", ["the blue room"])))
    twice = each.metrics(np.array([[2.0, 1.0, 0.0]]))[0]
    bleu = Bleu(4).compute_score(
        {0: ["a red circle behind"], 1: ["a red circle behind"], 2: ["two wooden doors"]},
        {0: ["a red circle in front"], 1: ["a red circle in front"], 2: ["two doors"]},
        verbose=0,
    )[0]
    assert twice[:4] == pytest.approx(bleu)
    assert twice[4:] == pytest.approx([each.rouge_l[[0, 0, 1]].mean(), each.cider[[0, 0, 1]].mean(), each.meteor[[0, 0, 1]].mean()])


def test_a_question_answered_twice_is_refused_by_name() -> None:
    one, other = answers(("a room", ["a room"]), ("a door", ["a door"]))
    with pytest.raises(BadInput, match=r"'interior' of 0\.jpg \(2 times\)"):
        score([one, other, one])


def test_no_predictions_are_refused() -> None:
    with pytest.raises(BadInput, match="no predictions"):
        score([])


def test_conditions_are_told_apart_and_never_scored_together() -> None:
    seen, blank = answers(("a room", ["a room"])), answers(("", ["a room"]), condition="blank")
    assert by_condition([*blank, *seen]) == {"image": seen, "blank": blank}
    with pytest.raises(ValueError, match="one at a time"):
        score([*seen, *answers(("a", ["b"]), ("a", ["b"]), condition="blank")[1:]])


def test_predictions_come_back_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    written = answers(("in “front”\u2028", ["in front"]), ("", ["behind", "nothing"]), condition="rolled", expect={"direction": "behind"}, seam=True)
    file.write_text("".join(each.model_dump_json() + "\n" for each in written))
    assert read_predictions(file) == written


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: Invalid JSON"),
        ('{"url": "1.jpg", "query": "q", "references": [], "prediction": ""}', "line 2: references: "),
        ('{"url": "1.jpg", "query": "q", "references": ["a"]}', "line 2: prediction: Field required"),
        ('{"url": "1.jpg", "query": "q", "references": ["a"], "prediction": "", "condition": "blnak"}', "line 2: condition: "),
        ('{"url": "1.jpg", "query": "q", "references": ["a"], "prediction": "", "score": 1}', "line 2: score: "),
    ],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "predictions.jsonl"
    file.write_text(answers(("a", ["a"]))[0].model_dump_json() + "\n" + line + "\n")
    with pytest.raises(BadInput) as refused:
        read_predictions(file)
    assert f"{file}: {complaint}" in str(refused.value)


def test_a_missing_predictions_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone\.jsonl: No such file"):
        read_predictions(tmp_path / "gone.jsonl")


CAPTIONS = {
    "Here's the first peek; it's messy, don't you think?": "here 's the first peek it 's messy do n't you think",
    "Someone's small dorm (with a closet).": "someone 's small dorm -lrb- with a closet -rrb-",
    "A well-known T-shirt -- 3.5 m, 1,000 people - $5 ... 50%!": "a well-known t-shirt 3.5 m 1,000 people $ 5 50 %",
    "Mr. Smith sees the U.S. flag at 5 p.m., etc.": "mr. smith sees the u.s. flag at 5 p.m. etc.",
    "They cannot say “what’s” ‘there’: it’s gonna be o'clock": "they can not say what 's there it 's gon na be o'clock",
    "the dogs' bowls and/or the people's houses at 10:30": "the dogs bowls and/or the people 's houses at 10:30",
    "What?? really?! yes!": "what ?? really ?! yes",
    "A 360° café – naïve…": "a 360 ° café naïve",
    "the left/right seam. Then the door": "the left/right seam then the door",
    "shouldn't've I'm we've you'll he'd": "should n't 've i 'm we 've you 'll he 'd",
    "": "",
    " . ,": "",
}


@pytest.mark.parametrize(("text", "words"), CAPTIONS.items())
def test_captions_are_cut_into_words(text: str, words: str) -> None:
    assert " ".join(tokenize(text)) == words


@pytest.mark.skipif(shutil.which("java") is None, reason="needs a Java to run Stanford's PTBTokenizer")
def test_words_are_those_of_the_ptb_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    jar = Path(pycocoevalcap.__path__[0]) / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    command: list[str | Path] = [
        "java",
        "-cp",
        jar,
        "edu.stanford.nlp.process.PTBTokenizer",
        "-preserveLines",
        "-lowerCase",
        tmp_path / "captions.txt",
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split("\n")
    dropped = {"''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
    theirs = [[word for word in line.split() if word not in dropped] for line in lines[: len(CAPTIONS)]]
    assert [tokenize(text) for text in CAPTIONS] == theirs


def test_scores_need_neither_java_nor_torch() -> None:
    code = (
        "import sys; from panollava.metrics.captions import Prediction; from panollava.metrics.report import report;"
        "import panollava.metrics.table, panollava.metrics.gates;"
        "scores = report([Prediction(url='a', query='b', references=['a room'], prediction='room')]).captions['image'];"
        "assert scores.meteor_exact_stem > 0 and scores.rouge_l > 0;"
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PATH": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[2], check=True, timeout=60)
