"""What a run's page is worked out from: files under several names, the track, settings, newest values, endings. No server."""

import math
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from app.jobs.finish import finish
from app.models import Attempt, Checkpoint, JobStatus, StageRun
from app.runs import service as runs
from app.runs.page import endings, history, newest, saved, settings_table, track
from app.runs.page.facts import facts
from app.runs.page.view import RunView
from app.runs.schemas import StageOut
from panollava.config import RunConfig, parse
from panollava.events import Metric, Progress, StageEvent
from panollava.presets import PRESETS
from panollava.stages import Stage

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


# checkpoints


def stage_row(id_: int, stage: Stage, position: int = 0, **more) -> StageRun:
    return StageRun(id=id_, run_id=1, stage=stage, position=position, **more)


def checkpoint(id_: int, kind: str, step: int, attempt: int = 1, stage_id: int = 1, sha256: str | None = None) -> Checkpoint:
    return Checkpoint(
        id=id_, run_id=1, stage_id=stage_id, job_id=1, attempt=attempt, path=f"/{id_}", kind=kind, step=step, epoch=1.0, metrics={},
        sha256=sha256 or str(step), size=1, created_at=NOW,
    )  # fmt: skip


def test_names_of_one_file_are_one_and_the_lasting_name_stands_for_it():
    rows = [checkpoint(1, "last", 20), checkpoint(2, "best", 20), checkpoint(3, "epoch", 20), checkpoint(4, "epoch", 10)]
    found = saved.gather(rows, [stage_row(1, Stage.vision)])
    assert [(each.row.id, each.label, each.is_best, each.is_last) for each in found] == [(3, "vision@20", True, True), (4, "vision@10", False, False)]


def test_two_files_of_one_step_stay_two():
    rows = [checkpoint(1, "epoch", 20, sha256="a"), checkpoint(2, "final", 20, sha256="b")]
    assert len(saved.gather(rows, [stage_row(1, Stage.vision)])) == 2


def test_the_best_is_what_the_newest_attempt_calls_so_until_the_stage_has_named_one():
    rows = [checkpoint(1, "best", 10), checkpoint(2, "best", 30, attempt=2), checkpoint(3, "epoch", 10)]
    training, done = stage_row(1, Stage.vision), stage_row(1, Stage.vision, best_checkpoint_id=3)
    assert [each.row.step for each in saved.gather(rows, [training]) if each.is_best] == [30]
    assert [each.row.step for each in saved.gather(rows, [done]) if each.is_best] == [10]


def test_later_stages_and_later_steps_come_first():
    rows = [checkpoint(1, "epoch", 30), checkpoint(2, "epoch", 10, stage_id=2), checkpoint(3, "epoch", 20, stage_id=2)]
    found = saved.gather(rows, [stage_row(1, Stage.vision), stage_row(2, Stage.resampler, position=1)])
    assert [each.label for each in found] == ["resampler@20", "resampler@10", "vision@30"]


# the track


@pytest.mark.parametrize(
    ("settings", "vision", "resampler"),
    [({}, "VICReg", "mlp"), ({"overlap_loss": "densecl", "overlap_loss_weight": 0.1}, "DenseCL", "mlp · 0.1 DenseCL")],
)
def test_the_track_names_the_overlap_loss_where_it_is_minimised(settings, vision, resampler):
    config = RunConfig(**settings).model_dump(mode="json")
    assert track.about(Stage.vision, config) == f"siglip-base-patch16-224 · {vision}"
    assert track.about(Stage.resampler, config) == resampler


def test_every_overlap_loss_has_a_name_on_the_track():
    assert set(track.OVERLAP_LOSSES) == set(get_args(RunConfig.model_fields["overlap_loss"].annotation))


def leg(status: str, **progress) -> track.Leg:
    told = StageOut(
        stage=Stage.vision, status=status, is_lost=False, waiting_because=None, job_id=1, attempt=1, progress=progress, reason=None, detail=None,
        init_checkpoint=None, best_checkpoint_id=None, queued_at=None, started_at=None, finished_at=None, heartbeat_at=None,
    )  # fmt: skip
    return track.Leg(told=told, is_current=True, about="", start=None, took=None, resumed_step=0, best_loss=None, foreseen=None, now=NOW)


def test_a_share_counts_steps_only():
    assert leg("running", unit="steps", done=1, total=4).share == 0.25
    assert leg("running", unit="images", done=3, total=4).share == 0
    assert leg("starting").share == 0
    assert leg("succeeded").share == 1


def test_the_time_left_runs_on_from_the_moment_it_was_told():
    told = leg("running", unit="steps", done=1, total=4, t=(NOW - timedelta(seconds=10)).timestamp(), eta_seconds=60.0)
    assert told.left == 50
    assert told.ends_at == NOW + timedelta(seconds=50)


@pytest.mark.parametrize("status", ["failed", "stopped", "queued", "succeeded"])
def test_what_is_not_at_work_has_no_time_left(status):
    told = leg(status, unit="steps", done=1, total=4, t=NOW.timestamp(), eta_seconds=60.0, seconds_per_unit=2.0)
    assert (told.left, told.ends_at, told.pace) == (None, None, None)


def test_work_is_the_sum_of_all_attempts():
    began = NOW - timedelta(minutes=10)
    spans = [Attempt(job_id=1, number=1, directory="", started_at=began, ended_at=began + timedelta(seconds=30))]
    spans.append(Attempt(job_id=1, number=2, directory="", started_at=NOW - timedelta(seconds=5)))
    assert track.worked(spans, NOW) == 35
    assert track.worked([], NOW) is None


# settings


def test_what_was_changed_comes_first_and_what_the_manager_sets_is_no_change():
    config = RunConfig(stage="vision", overlap=0.25, output_dir="/runs/run-1", stages={"vision": {"lr": 1e-4}}).model_dump(mode="json")
    table = settings_table.table(config)
    assert {each.name: (each.value, each.default) for each in table if each.changed} == {
        "stage": ("vision", "vision, resampler, finetune"), "overlap": ("0.25", "0.5"), "stages.vision.lr": ("0.0001", "5e-06"),
    }  # fmt: skip
    assert [each.changed for each in table[:4]] == [True, True, True, False]
    assert all(each.help for each in table)


def test_only_the_runs_own_stages_have_settings():
    names = {each.name for each in settings_table.table(RunConfig(stage="finetune").model_dump(mode="json"))}
    assert "stages.finetune.lr" in names and "stages.vision.lr" not in names


def test_a_setting_of_an_older_version_is_shown_without_a_default():
    config = RunConfig().model_dump(mode="json") | {"retired": None}
    old = next(each for each in settings_table.table(config) if each.name == "retired")
    assert (old.value, old.default, old.changed) == ("not set", None, True)


# newest values


@pytest.fixture
def at_work(house, session):
    job, attempt = house.running(session)
    return lambda *told: house.tell(session, job, attempt, *told), job


def test_newest_values_move_against_the_validation_before_and_the_steps_before(session, at_work):
    tell, job = at_work
    tell(*(Metric(step=step, epoch=0, values={"train_loss": 3.0 if step <= 100 else 2.0, "lr": 0.1}) for step in range(1, 151)))
    tell(*(Metric(step=step, epoch=1, values={"val_loss": loss}) for step, loss in ((50, 4.0), (100, 2.5), (150, 2.75))))
    found = newest.values(session, job.run_id, Stage.resampler)
    assert found.step == 150
    told = {each.name: (each.last, each.change, each.is_better) for each in found.values}
    assert told == {"train_loss": (2.0, -1.0, True), "val_loss": (2.75, 0.25, False), "lr": (0.1, None, False)}


def test_too_few_values_or_some_that_are_no_numbers_do_not_move(session, at_work):
    tell, job = at_work
    assert newest.values(session, job.run_id, Stage.resampler) is None
    tell(Metric(step=1, epoch=0, values={"val_loss": 1.0}))
    assert newest.values(session, job.run_id, Stage.resampler).values[0].change is None
    tell(Metric(step=2, epoch=0, values={"val_loss": math.nan}))
    told = newest.values(session, job.run_id, Stage.resampler).values[0]
    assert math.isnan(told.last) and told.change is None


# endings and history


@pytest.mark.parametrize(
    ("reason", "detail", "words"),
    [
        ("out_of_memory", "Out of memory on cuda:0 in step 12.", "It ran out of memory on its device"),
        ("OutOfMemoryError", "CUDA out of memory.", "It ran out of memory on its device"),
        ("RuntimeError", "CUDA error: out of memory", "It ran out of memory on its device"),
        ("bad_input", "x.csv: no such file.", "It refused its input"),
        ("worker_lost", "3 attempts in a row", "It was lost with its worker"),
        ("ZeroDivisionError", "division by zero", "ZeroDivisionError"),
    ],
)
def test_an_ending_is_put_into_words(session, at_work, reason, detail, words):
    _tell, job = at_work
    job.reason, job.detail = reason, detail
    told = endings.explain(session, job, failed=True)
    assert (told.words, told.said, told.more, told.line) == (words, detail, None, None)
    assert (told.hint is not None) == (reason != "ZeroDivisionError")


def test_reasons_of_moves_are_put_into_words_and_unknown_ones_kept():
    assert history.why(JobStatus.queued, "resumed") == "to go on"
    assert history.why(JobStatus.queued, "vision_succeeded") == "vision succeeded"
    assert history.why(JobStatus.failed, "bad_input") == "It refused its input"
    assert history.why(JobStatus.failed, "KeyError") == "KeyError"


# the whole


def view(session, run, asked=None) -> RunView:
    return RunView(session, run, NOW, asked)


def test_charts_follow_the_run_unless_a_stage_or_all_are_asked_for(house, session):
    run = house.create(session, stage="resampler,finetune")
    assert view(session, run).chosen is Stage.resampler
    assert view(session, run, Stage.finetune).chosen is Stage.finetune
    assert view(session, run, "all").chosen is None and view(session, run, "all").shown_stage is Stage.resampler


def test_the_log_is_that_of_the_stage_asked_for_if_it_has_begun(house, session):
    run = house.create(session, stage="resampler,finetune")
    assert view(session, run).logged(None).stage_id == view(session, run).logged(Stage.resampler).stage_id
    assert view(session, run).logged(Stage.finetune) is None


def test_a_stage_that_starts_from_a_checkpoint_of_no_run_names_its_file(house, session, checkpoint):
    run = house.create(session, init_from=str(checkpoint))
    assert view(session, run).legs[0].start == track.Start("best.ckpt")


def test_what_trains_the_same_from_a_terminal_is_told(house, session):
    run = house.create(session, stage="resampler", stages={"resampler": {"lr": 0.001}})
    assert view(session, run).command.startswith("panollava train \\\n  --stage resampler \\\n")
    assert "--set resampler.lr=0.001" in view(session, run).command


def test_a_second_attempt_says_where_it_went_on(house, session):
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 7), Progress(done=9, total=20, unit="steps"))
    runs.stop(session, runs.get(session, job.run_id), "ann")
    assert finish(session, job.id, job.attempt, JobStatus.stopped, actor="one", reason="stopped")
    runs.resume(session, runs.get(session, job.run_id), "ann")
    again, attempt = house.claim(session)
    house.tell(session, again, attempt, StageEvent(name="resampler", status="resumed", step=7))
    (told,) = view(session, runs.get(session, job.run_id)).legs
    assert (told.resumed_step, told.told.attempt, told.told.status) == (7, 2, "running")


def test_beside_a_runs_name_stand_its_views_and_image_tokens():
    config = parse(PRESETS["demo"]).model_dump(mode="json")
    assert facts(config) == ["8 views", "32 image tokens", "mlp"]
    assert facts(config | {"vision_model": "/gone"}) == ["8 views", "mlp"]
