"""An evaluation asks every question, shows what it says it shows, and counts what it got."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panollava.config import Control, EvaluateConfig, RunConfig
from panollava.data.images import load_panorama
from panollava.errors import BadInput
from panollava.evaluation.answer import Answer, Answerer, load
from panollava.evaluation.ask import ask
from panollava.evaluation.evaluate import evaluate
from panollava.evaluation.questions import Question, swapped, turned
from panollava.metrics.compare import compare_directories
from panollava.model.panollava import PanoLlava
from panollava.stages import Stage
from panollava.training.fit import train_stage
from panollava.training.job import StageJob
from panollava.training.stop import Stopped, StopRequest


@pytest.fixture(scope="module")
def checkpoint(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resampler checkpoint of a few steps: enough to answer something."""
    directory = tmp_path_factory.mktemp("runs") / "vlm_resampler"
    return train_stage(StageJob(config, Stage.resampler, directory), StopRequest(directory))


CONTROLS: tuple[Control, ...] = ("blank", "shuffled", "rolled", "untrained", "query_swap")


@pytest.fixture(scope="module")
def evaluation(checkpoint: Path, demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without a cache: what those that have one must say too."""
    return evaluate(asking(checkpoint, demo_data, tmp_path_factory.mktemp("evaluation"), controls=CONTROLS))


@pytest.fixture(scope="module")
def answerer(checkpoint: Path) -> Answerer:
    return load(checkpoint)


def asking(checkpoint: Path, demo_data: Path, directory: Path, **more: Any) -> EvaluateConfig:
    """The questions of `evaluation`, without its controls."""
    settings = {"max_new_tokens": 12, "cache": "off"} | more
    return EvaluateConfig(checkpoint=str(checkpoint), csv=str(demo_data / "test.csv"), output_dir=str(directory), **settings)


@dataclass
class Spy:
    """An answerer that counts, and that runs out of memory, breaks off or is blank where it is told to."""

    real: Answerer
    fits: int = 1000
    breaks_after: int = 1000
    says: str | None = None
    then: Callable[[], object] = lambda: None
    encoded: int = 0
    asked: list[Sequence[str]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def encode(self, views: torch.Tensor) -> torch.Tensor:
        self.encoded += len(views)
        return self.real.encode(views)

    def answers(self, image_tokens: torch.Tensor, queries: Sequence[str], max_new_tokens: int) -> list[Answer]:
        if len(self.asked) == self.breaks_after:
            raise KeyboardInterrupt
        self.asked.append(queries)
        if len(queries) > self.fits:
            raise torch.OutOfMemoryError("no room")
        self.then()
        real = self.real.answers(image_tokens, queries, max_new_tokens)
        return real if self.says is None else [Answer(self.says, False) for _ in real]


@contextmanager
def answering(spy: Spy) -> Iterator[Spy]:
    """An evaluation that loads its checkpoint gets this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("panollava.evaluation.evaluate.load", lambda path: spy)
        yield spy


def said(directory: Path) -> dict[tuple[object, object], object]:
    """Answers to the image."""
    return {(each["url"], each["query"]): each["prediction"] for each in predictions(directory) if each["condition"] == "image"}


def predictions(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "predictions.jsonl").read_text().splitlines()]


def test_every_question_of_the_table_is_asked_once_under_every_condition(evaluation: Path, demo_data: Path) -> None:
    truth = [json.loads(line) for line in (demo_data / "test.truth.jsonl").read_text().splitlines()]
    asked = Counter(each["condition"] for each in predictions(evaluation))
    assert asked == dict.fromkeys(("image", "blank", "shuffled", "rolled", "untrained", "query_swap"), len(truth))


def test_the_metrics_count_the_groups_and_references_of_the_table(evaluation: Path, demo_data: Path) -> None:
    rows = len((demo_data / "test.csv").read_text().splitlines()) - 1
    metrics = json.loads((evaluation / "metrics.json").read_text())
    image = metrics["captions"]["image"]
    assert image["references"] == rows
    assert image["groups"] == rows // 3
    assert set(metrics["chance"]) <= {"colour", "shape", "direction"}


def test_two_questions_about_one_panorama_get_two_answers(checkpoint: Path, demo_data: Path) -> None:
    image = next((demo_data / "images").glob("test_*.jpg"))
    assert ask(checkpoint, image, "what is behind", 12) != ask(checkpoint, image, "where is the red circle", 12)


def test_an_answer_is_the_same_alone_and_in_an_evaluation(checkpoint: Path, evaluation: Path, demo_data: Path) -> None:
    shown = [each for each in predictions(evaluation) if each["condition"] == "image"][:3]
    for each in shown:
        assert ask(checkpoint, demo_data / str(each["url"]), str(each["query"]), 12) == each["prediction"]


def test_a_batch_of_questions_of_any_lengths_gets_the_answers_of_each_alone(answerer: Answerer, demo_data: Path) -> None:
    """Prompts padded on the right, or positions that count the padding, give other answers."""
    images = sorted((demo_data / "images").glob("test_*.jpg"))[:2]
    tokens = answerer.encode(torch.from_numpy(np.stack([answerer.cutter(load_panorama(image)) for image in images])))
    queries = ["overview", "what is behind", "in which direction is the red circle", "describe the object on the right", "x", "objects"]
    rows = [0, 1, 0, 1, 0, 1]
    together = answerer.answers(tokens[rows], queries, 12)
    alone = [answerer.answers(tokens[[row]], [query], 12)[0] for row, query in zip(rows, queries, strict=True)]
    assert together == alone
    assert len({answer.text for answer in together}) > 2


def test_every_panorama_is_encoded_once_for_all_its_questions(checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer) -> None:
    with answering(Spy(answerer)) as spy:
        evaluate(asking(checkpoint, demo_data, tmp_path))
    questions = predictions(tmp_path)
    assert spy.encoded == len({each["url"] for each in questions}) < len(questions)


def encodings(patch: pytest.MonkeyPatch) -> list[int]:
    """How many panoramas the encoder is given together, each time."""
    given: list[int] = []
    honest = PanoLlava.patches

    def patches(model: PanoLlava, pixels: torch.Tensor) -> torch.Tensor:
        given.append(len(pixels))
        return honest(model, pixels)

    patch.setattr(PanoLlava, "patches", patches)
    return given


def test_with_cached_features_every_condition_gets_the_same_answers_and_the_encoder_works_once(
    checkpoint: Path, demo_data: Path, tmp_path: Path, evaluation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The panorama itself also stands behind `shuffled` and `query_swap`; a grey one, a rolled one and an untrained encoder do not share with it."""
    encoded, panoramas = encodings(monkeypatch), len({each["url"] for each in predictions(evaluation)})
    cache = {"cache": "auto", "cache_dir": str(tmp_path / "cache"), "controls": CONTROLS}
    evaluate(asking(checkpoint, demo_data, tmp_path / "cold", **cache))
    assert predictions(tmp_path / "cold") == predictions(evaluation)
    assert sum(encoded) == 3 * panoramas + 1, "the image, rolled, untrained, and one that is grey"
    encoded.clear()
    evaluate(asking(checkpoint, demo_data, tmp_path / "warm", **cache))
    assert predictions(tmp_path / "warm") == predictions(evaluation)
    assert sum(encoded) == panoramas + 1, "rolled and grey"


def test_an_evaluation_that_was_stopped_goes_on_with_cached_features_and_gets_the_same_answers(
    checkpoint: Path, demo_data: Path, tmp_path: Path, evaluation: Path, answerer: Answerer
) -> None:
    cache = {"cache": "auto", "cache_dir": str(tmp_path / "cache"), "controls": CONTROLS[1:2], "batch_size": 5}
    with answering(Spy(answerer, then=(tmp_path / "stop").touch)), pytest.raises(Stopped):
        evaluate(asking(checkpoint, demo_data, tmp_path, **cache))
    (tmp_path / "stop").unlink()
    evaluate(asking(checkpoint, demo_data, tmp_path, **cache))
    wanted = {(each["condition"], each["url"], each["query"]): each["prediction"] for each in predictions(evaluation)}
    found = {(each["condition"], each["url"], each["query"]): each["prediction"] for each in predictions(tmp_path)}
    assert found == {key: text for key, text in wanted.items() if key[0] in ("image", "shuffled")}


def test_a_checkpoint_with_another_vision_encoder_does_not_take_the_features_of_the_first(
    checkpoint: Path, config: RunConfig, demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage resampler trains the encoder, so each of its checkpoints sees with other eyes."""
    other = train_stage(StageJob(config.model_copy(update={"seed": 1}), Stage.resampler, tmp_path / "run"), StopRequest(tmp_path / "run"))
    cache = {"cache": "auto", "cache_dir": str(tmp_path / "cache")}
    evaluate(asking(checkpoint, demo_data, tmp_path / "first", **cache))
    encoded = encodings(monkeypatch)
    evaluate(asking(other, demo_data, tmp_path / "second", **cache))
    assert sum(encoded) == len({each["url"] for each in predictions(tmp_path / "second")})
    assert said(tmp_path / "second") == said(evaluate(asking(other, demo_data, tmp_path / "alone")))
    assert said(tmp_path / "second") != said(tmp_path / "first")


@pytest.mark.parametrize(("cache", "kept"), [("off", set()), ("views", {"views"}), ("auto", {"views", "features"})])
def test_cache_means_the_same_for_an_evaluation_as_for_a_training(
    checkpoint: Path, demo_data: Path, tmp_path: Path, cache: str, kept: set[str]
) -> None:
    evaluate(asking(checkpoint, demo_data, tmp_path / "out", cache=cache, cache_dir=str(tmp_path / "cache"), limit=2, max_new_tokens=1))
    assert {path.parent.parent.name for path in (tmp_path / "cache").glob("*/*/*")} == kept


def test_where_the_cache_has_no_room_the_answers_are_the_same(checkpoint: Path, demo_data: Path, tmp_path: Path, evaluation: Path) -> None:
    room = {"cache": "auto", "cache_dir": str(tmp_path / "cache"), "cache_gb": 200e3 / 1e9}
    evaluate(asking(checkpoint, demo_data, tmp_path / "out", **room))
    assert said(tmp_path / "out") == said(evaluation)


def test_prompts_of_a_batch_are_of_similar_length(checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer) -> None:
    with answering(Spy(answerer)) as spy:
        evaluate(asking(checkpoint, demo_data, tmp_path, batch_size=4))
    lengths = [answerer.prompt_length(query) for batch in spy.asked for query in batch]
    assert lengths == sorted(lengths)


def test_a_batch_that_does_not_fit_into_memory_is_halved_and_nothing_is_dropped(
    checkpoint: Path, demo_data: Path, tmp_path: Path, evaluation: Path, answerer: Answerer
) -> None:
    with answering(Spy(answerer, fits=5)) as spy:
        evaluate(asking(checkpoint, demo_data, tmp_path, batch_size=16))
    assert said(tmp_path) == said(evaluation)
    assert [len(batch) for batch in spy.asked][:4] == [16, 8, 4, 4]
    notes = [event["text"] for event in map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines()) if event["type"] == "note"]
    assert notes == [
        f"{tried} questions at once did not fit into memory; {size} at once from here on. Nothing is left out." for tried, size in ((16, 8), (8, 4))
    ]
    assert json.loads((tmp_path / "metrics.json").read_text())["questions_at_once"] == 4


def test_one_question_that_does_not_fit_fails_and_says_so(checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer) -> None:
    with answering(Spy(answerer, fits=0)), pytest.raises(torch.OutOfMemoryError):
        evaluate(asking(checkpoint, demo_data, tmp_path))
    assert not (tmp_path / "metrics.json").exists()


def test_an_interrupted_evaluation_goes_on_from_its_answers(
    checkpoint: Path, demo_data: Path, tmp_path: Path, evaluation: Path, answerer: Answerer
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with answering(Spy(answerer, breaks_after=2)), pytest.raises(KeyboardInterrupt):
        evaluate(asking(checkpoint, demo_data, first, batch_size=4))
    growing = first / "predictions.jsonl.part"
    assert len(growing.read_text().splitlines()) == 8
    growing.write_text(growing.read_text() + '{"url": "torn')
    with answering(Spy(answerer)) as spy:
        evaluate(asking(checkpoint, demo_data, second, resume=str(first), batch_size=3))
    assert said(second) == said(evaluation)
    assert sum(map(len, spy.asked)) == len(said(evaluation)) - 8
    assert growing.read_text().endswith('{"url": "torn')  # another's file is read, not changed
    with answering(Spy(answerer)) as spy:
        evaluate(asking(checkpoint, demo_data, first))
    assert sum(map(len, spy.asked)) == len(said(evaluation)) - 8


def test_answers_of_other_settings_are_not_kept(checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer) -> None:
    with answering(Spy(answerer, breaks_after=2)), pytest.raises(KeyboardInterrupt):
        evaluate(asking(checkpoint, demo_data, tmp_path, batch_size=4))
    with answering(Spy(answerer)) as spy:
        evaluate(asking(checkpoint, demo_data, tmp_path, max_new_tokens=3))
    assert sum(map(len, spy.asked)) == len(predictions(tmp_path))


@pytest.fixture
def own_data(demo_data: Path, tmp_path: Path) -> Path:
    """The questions and panoramas of the test split, to be changed."""
    own = tmp_path / "own"
    own.mkdir()
    for name in ("test.csv", "test.truth.jsonl", "grounding.json", "train.csv", "train.truth.jsonl"):
        (own / name).write_bytes((demo_data / name).read_bytes())
    (own / "images").mkdir()
    for image in (demo_data / "images").glob("test_*.jpg"):
        (own / "images" / image.name).write_bytes(image.read_bytes())
    return own


def test_rows_that_cannot_be_used_are_left_out_and_counted_where_allowed(checkpoint: Path, own_data: Path, tmp_path: Path) -> None:
    gone = sorted((own_data / "images").iterdir())[0]
    gone.unlink()
    lost = sum(gone.name in line for line in (own_data / "test.csv").read_text().splitlines())
    with pytest.raises(BadInput, match=r"rows cannot be used \(max_bad_frac is 0\)"):
        evaluate(asking(checkpoint, own_data, tmp_path / "refused"))
    directory = evaluate(asking(checkpoint, own_data, tmp_path / "e", max_bad_frac=0.5))
    assert json.loads((directory / "metrics.json").read_text())["rows_left_out"] == lost
    assert not any(gone.name in str(answer["url"]) for answer in predictions(directory))


def test_answers_of_other_images_are_not_kept_and_not_compared(checkpoint: Path, own_data: Path, tmp_path: Path, answerer: Answerer) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    evaluate(asking(checkpoint, own_data, first))
    with answering(Spy(answerer, breaks_after=2)), pytest.raises(KeyboardInterrupt):
        evaluate(asking(checkpoint, own_data, second, batch_size=4))
    image, other = sorted((own_data / "images").iterdir())[:2]
    image.write_bytes(other.read_bytes())
    with answering(Spy(answerer)) as spy:
        evaluate(asking(checkpoint, own_data, second))
    assert sum(map(len, spy.asked)) == len(predictions(second)), "all of them again"
    before, after = (json.loads((directory / "metrics.json").read_text()) for directory in (first, second))
    assert before["csv"] == after["csv"] and before["data"]["sha256"] != after["data"]["sha256"]
    with pytest.raises(BadInput, match=f"were asked of other images in .* the file of images/{image.name}"):
        compare_directories([first, second])


def test_answers_that_do_not_say_of_which_images_are_kept_with_a_warning(
    checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer, caplog: pytest.LogCaptureFixture
) -> None:
    """As a version left them that did not look at the images."""
    with answering(Spy(answerer, breaks_after=2)), pytest.raises(KeyboardInterrupt):
        evaluate(asking(checkpoint, demo_data, tmp_path, batch_size=4))
    noted = json.loads((tmp_path / "evaluation.json").read_text())
    del noted["data_sha256"]
    (tmp_path / "evaluation.json").write_text(json.dumps(noted, indent=1))
    with answering(Spy(answerer)) as spy:
        evaluate(asking(checkpoint, demo_data, tmp_path))
    assert sum(map(len, spy.asked)) == len(predictions(tmp_path)) - 8
    assert "does not say of which images its answers are" in caplog.text


def test_answers_that_a_power_cut_has_spoiled_are_asked_again(checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer) -> None:
    with answering(Spy(answerer, breaks_after=2)), pytest.raises(KeyboardInterrupt):
        evaluate(asking(checkpoint, demo_data, tmp_path, batch_size=4))
    growing = tmp_path / "predictions.jsonl.part"
    growing.write_bytes(growing.read_bytes() + b"\0" * 40 + b"\n")
    with answering(Spy(answerer)) as spy:
        evaluate(asking(checkpoint, demo_data, tmp_path))
    assert sum(map(len, spy.asked)) == len(predictions(tmp_path))


def test_answers_that_are_whole_are_scored_again_where_the_metrics_are_missing(
    checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer
) -> None:
    request = asking(checkpoint, demo_data, tmp_path)
    before = json.loads((evaluate(request) / "metrics.json").read_text())
    (tmp_path / "metrics.json").unlink()
    with answering(Spy(answerer)) as spy:
        evaluate(request)
    assert spy.asked == []
    assert json.loads((tmp_path / "metrics.json").read_text()) == before


def test_a_stop_keeps_what_is_answered_and_says_how_to_go_on(checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer) -> None:
    with answering(Spy(answerer, then=(tmp_path / "stop").touch)), pytest.raises(Stopped, match="--resume"):
        evaluate(asking(checkpoint, demo_data, tmp_path, batch_size=4))
    assert len((tmp_path / "predictions.jsonl.part").read_text().splitlines()) == 4


def test_empty_answers_are_counted_and_score_nothing(checkpoint: Path, demo_data: Path, tmp_path: Path, answerer: Answerer) -> None:
    with answering(Spy(answerer, says="")):
        evaluate(asking(checkpoint, demo_data, tmp_path))
    image = json.loads((tmp_path / "metrics.json").read_text())["captions"]["image"]
    assert image["groups"] == len(predictions(tmp_path)) > 0
    assert (image["blank_rate"], image["bleu_1"], image["cider"], image["rouge_l"]) == (1, 0, 0, 0)


def test_a_table_without_references_cannot_be_evaluated_and_says_so(checkpoint: Path, demo_data: Path, tmp_path: Path) -> None:
    bare = demo_data / "bare.csv"
    bare.write_text("url,query\n" + next((demo_data / "images").glob("test_*.jpg")).relative_to(demo_data).as_posix() + ",overview\n")
    with pytest.raises(BadInput, match="annotation"):
        evaluate(EvaluateConfig(checkpoint=str(checkpoint), csv=str(bare), output_dir=str(tmp_path)))
    assert not (tmp_path / "metrics.json").exists()


def test_an_answer_that_is_cut_off_is_told_from_one_that_ends(checkpoint: Path, demo_data: Path, answerer: Answerer) -> None:
    tokens = answerer.encode(torch.from_numpy(answerer.cutter(load_panorama(next((demo_data / "images").glob("test_*.jpg")))))[None])
    whole, cut = (answerer.answers(tokens, ["what is behind"], most)[0] for most in (64, 1))
    assert (whole.truncated, cut.truncated) == (False, True)


def test_every_control_says_what_the_image_is_worth_and_whether_answers_change(evaluation: Path) -> None:
    metrics = json.loads((evaluation / "metrics.json").read_text())
    assert set(metrics["diagnoses"]) == {"blank", "shuffled", "rolled", "untrained", "query_swap"}
    for diagnosis in metrics["diagnoses"].values():
        assert {"cider", "meteor_exact_stem"} <= diagnosis["image_minus"].keys()
        assert 0 <= diagnosis["agreement"]["same"]["value"] <= diagnosis["agreement"]["likeness"]["value"] <= 1
    assert metrics["captions"]["image"]["truncated_rate"] is not None


def test_a_query_swap_asks_about_the_same_panorama_what_has_another_answer() -> None:
    red, alike, blue = (
        Question(0, "a.jpg", query, (answer,))
        for query, answer in (("what is behind", "red"), ("what do you see behind", "red"), ("in front", "blue"))
    )
    lone = Question(1, "b.jpg", "in front", ("white",))
    assert [each.asked for each in swapped([red, alike, blue, lone])] == ["in front", "in front", "what is behind", "what is behind"]
    assert [each.references for each in swapped([red, lone])] == [("red",), ("white",)]
    with pytest.raises(BadInput, match=r"query_swap .* only 'interior'"):
        swapped([Question(image, f"{image}.jpg", "interior", ("a room",)) for image in range(3)])


def test_rolling_turns_question_answers_and_truth_together() -> None:
    question = Question(0, "a.jpg", "what is behind", ("a red circle", "a red circle on the left"), expect={"direction": "on the left"})
    (after,) = turned([question], ["in front", "on the right", "behind", "on the left"])
    assert (after.query, after.words) == ("what is behind", "what is on the left")
    assert after.references == ("a red circle", "a red circle in front")
    assert after.expect == {"direction": "in front"}


def test_a_vision_checkpoint_cannot_answer_and_says_so(config: RunConfig, demo_data: Path, tmp_path: Path) -> None:
    best = train_stage(StageJob(config, Stage.vision, tmp_path), StopRequest(tmp_path))
    with pytest.raises(BadInput, match="no trained path to the language model"):
        evaluate(EvaluateConfig(checkpoint=str(best), csv=str(demo_data / "test.csv"), output_dir=str(tmp_path / "evaluation")))


def test_two_steps_and_an_answer_on_real_photographs(config: RunConfig, sample_dir: Path, tmp_path: Path) -> None:
    table = str(sample_dir / "downtest.csv")
    two = config.stages.resampler.model_copy(update={"max_steps": 2, "batch_size": 4, "max_text_length": 256})
    real = config.model_copy(update={"csv_train": (table,), "csv_val": (table,), "stages": config.stages.model_copy(update={"resampler": two})})
    best = train_stage(StageJob(real, Stage.resampler, tmp_path), StopRequest(tmp_path))
    answer = ask(best, next((sample_dir / "images").glob("*.jpg")), "interior", 8)
    assert isinstance(answer, str)
    losses = [json.loads(line)["values"].get("train_loss") for line in (tmp_path / "events.jsonl").read_text().splitlines() if '"metric"' in line]
    assert np.isfinite([loss for loss in losses if loss is not None]).all()
