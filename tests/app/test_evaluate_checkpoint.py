"""A person puts a table's questions to a checkpoint."""

import json
from pathlib import Path

import pytest
from sqlmodel import select

from app.errors import Conflict, Forbidden, Invalid, NotFound
from app.evaluations import service as evaluations
from app.jobs.finish import finish
from app.models import Evaluation, Job, JobStatus
from panollava import rundir
from panollava.config import EvaluateConfig
from panollava.errors import BadInput
from panollava.metrics.captions import Prediction
from panollava.metrics.report import report


def create(house, session, checkpoint, table="test", **more):
    config = EvaluateConfig(checkpoint=str(checkpoint), csv=str(house.root / f"{table}.csv"))
    return evaluations.create(session, config, house.settings, "ann", **more)


def answer(house, session, evaluation, *answers):
    """The evaluation's trainer answers its questions, one after the other, and ends well."""
    job, attempt = house.claim(session)
    assert job.evaluation_id == evaluation.id
    directory = Path(attempt.directory)
    lines = [Prediction(url=f"{n}.jpg", query="What?", references=["a red cube"], prediction=text) for n, text in enumerate(answers)]
    (directory / "predictions.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))
    (directory / "metrics.json").write_text(report(lines).model_dump_json())
    finish(session, job.id, attempt.number, JobStatus.succeeded, actor="one", reason="succeeded")
    return directory


def test_an_evaluation_and_its_job_are_made_together(house, session, checkpoint):
    evaluation = create(house, session, checkpoint)
    job = evaluations.jobs_of(session, [evaluation])[evaluation.id]
    assert (job.kind, job.status, job.run_id, job.stage_id) == ("evaluate", "queued", None, None)
    assert job.directory == f"{house.settings.artifacts}/evaluations/eval-{evaluation.id}"
    assert evaluation.name == "best.ckpt on test"
    assert evaluation.config["checkpoint"] == str(checkpoint)


def test_a_checkpoint_of_a_run_belongs_to_it(house, session):
    job, attempt = house.running(session)
    saved = house.saved(attempt, 5, "best", "best.ckpt")
    house.tell(session, job, attempt, saved)
    evaluation = create(house, session, f"{attempt.directory}/{saved.path}")
    assert (evaluation.run_id, evaluation.checkpoint_id) == (job.run_id, 1)
    assert evaluation.name == "resampler@5 of run 1 on test"
    assert [each.id for each in evaluations.page(session, run_id=job.run_id)] == [evaluation.id]


def test_its_figures_are_kept_when_it_succeeds(house, session, checkpoint):
    evaluation = create(house, session, checkpoint)
    directory = answer(house, session, evaluation, "a red cube")
    assert evaluation.metrics == json.loads((directory / "metrics.json").read_text())
    assert evaluation.metrics["captions"]["image"]["rouge_l"] == 1
    assert evaluation.directory == str(directory)
    assert [each["evaluation_id"] for each in house.told(session, "evaluation")] == [evaluation.id]


@pytest.mark.parametrize("left", [None, "{", "[1]"])
def test_a_success_that_left_no_figures_is_a_failure_that_says_so(house, session, checkpoint, left):
    create(house, session, checkpoint)
    job, attempt = house.claim(session)
    if left:
        Path(attempt.directory, "metrics.json").write_text(left)
    finish(session, job.id, 1, JobStatus.succeeded, actor="one", reason="succeeded")
    assert (job.status, job.reason) == ("failed", "no_result")
    assert "metrics.json" in job.detail


def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(house, session, checkpoint, tmp_path_factory):
    with pytest.raises(BadInput, match="there is no such checkpoint"):
        create(house, session, house.root / "none.ckpt")
    with pytest.raises(BadInput, match=r"none\.csv: No such file"):
        create(house, session, checkpoint, table="none")
    with pytest.raises(Forbidden, match=r"checkpoint: .* lies outside"):
        create(house, session, tmp_path_factory.mktemp("elsewhere") / "best.ckpt")
    assert session.exec(select(Evaluation)).all() == session.exec(select(Job)).all() == []


def test_the_same_request_with_the_same_key_is_one_evaluation(house, session, checkpoint):
    first = create(house, session, checkpoint, request_key="mine")
    assert create(house, session, checkpoint, request_key="mine") is first
    with pytest.raises(Conflict, match="The key 'mine' was used for evaluation 1"):
        create(house, session, checkpoint, table="valid", request_key="mine")


def test_evaluations_are_compared_with_the_first_or_with_the_one_named(house, session, checkpoint):
    made = [create(house, session, checkpoint, name=name) for name in ("good", "bad")]
    answer(house, session, made[0], "a red cube", "a red cube")
    answer(house, session, made[1], "a red cube", "nothing")
    compared = evaluations.compare(session, [1, 2])
    assert [each.label for each in compared.evaluations] == ["good", "bad"]
    assert compared.evaluations[1].metrics["rouge_l"].difference.value == pytest.approx(-0.5)
    assert evaluations.compare(session, [1, 2], base=2).evaluations[0].metrics["rouge_l"].difference.value == pytest.approx(0.5)


def test_what_cannot_be_compared_is_named(house, session, checkpoint):
    create(house, session, checkpoint)
    with pytest.raises(Conflict, match="Evaluation 1 has no predictions yet"):
        evaluations.compare(session, [1, 1])
    with pytest.raises(NotFound, match="There is no evaluation 7"):
        evaluations.compare(session, [7])


def test_a_checkpoint_of_stage_vision_is_refused_because_it_cannot_answer(house, session, checkpoint):
    note = rundir.note_path(checkpoint)
    note.write_text(note.read_text().replace('"stage":"resampler"', '"stage":"vision"'))
    with pytest.raises(Invalid, match="stage vision, which learns no answers"):
        create(house, session, checkpoint)


def test_answers_that_were_removed_are_not_found(house, session, checkpoint):
    evaluation = create(house, session, checkpoint)
    (answer(house, session, evaluation, "a red cube") / "predictions.jsonl").unlink()
    with pytest.raises(NotFound, match="is not there any more"):
        evaluations.predictions(evaluation, None, 10)
