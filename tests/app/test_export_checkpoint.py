"""A person asks for a checkpoint as a directory that transformers loads."""

from pathlib import Path

import pytest
from sqlmodel import select

from app import db
from app.checkpoints import exports
from app.checkpoints import service as checkpoints
from app.errors import Conflict, Invalid, NotFound
from app.jobs import queue
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.jobs.waiting import why_waiting
from app.models import Checkpoint, Export, Job, JobKind, JobStatus, Worker
from app.overview import service as overview
from panollava import rundir
from panollava.errors import BadInput
from worker import commands


@pytest.fixture
def saved(house, session):
    """Checkpoint 5 of a run that has stopped, under the two names of its file."""
    job, attempt = house.running(session)
    house.tell(session, job, attempt, house.saved(attempt, 5, "epoch", "epoch.ckpt"), house.saved(attempt, 5, "best", "best.ckpt"))
    finish(session, job.id, attempt.number, JobStatus.failed, actor="one", reason="failed")
    return {Path(each.path).name: each for each in session.exec(select(Checkpoint))}


def end(session, job, attempt, status=JobStatus.succeeded, left=True, **more):
    """The trainer ends, and leaves a model where it succeeds."""
    if left:
        (Path(attempt.directory) / "model").mkdir()
        (Path(attempt.directory) / "model" / "config.json").write_text("{}")
    finish(session, job.id, attempt.number, status, actor="one", **{"reason": str(status)} | more)


def all_jobs(session):
    return session.exec(select(Job).where(Job.kind == JobKind.export)).all()


def test_an_export_is_a_job_below_its_run(house, session, saved):
    export = exports.export(session, saved["epoch.ckpt"], "ann")
    job = exports.job_of(session, export)
    assert (job.kind, job.status, job.run_id, job.stage_id, job.devices) == ("export", "queued", 1, None, 1)
    assert job.directory == f"{house.settings.artifacts}/run-1/exports/resampler-5"
    assert house.told(session, "job")[-1] | {"kind": "export", "export_id": export.id, "status": "queued"} == house.told(session, "job")[-1]


def test_checkpoints_of_two_attempts_at_one_step_are_exported_side_by_side(house, session, saved):
    job = session.exec(select(Job)).one()
    jobs.retry(session, job, "ann")
    job, attempt = house.claim(session)
    told = house.saved(attempt, 5, "epoch", "epoch.ckpt")
    Path(attempt.directory, told.path).write_bytes(b"others!" * 5)
    other = told.model_copy(update={"sha256": rundir.sha256(Path(attempt.directory, told.path))})
    house.tell(session, job, attempt, other)
    second = checkpoints.at(session, Path(attempt.directory, told.path))
    both = [exports.job_of(session, exports.export(session, each, "ann")) for each in (saved["epoch.ckpt"], second)]
    exports_ = f"{house.settings.artifacts}/run-1/exports"
    assert [each.directory for each in both] == [f"{exports_}/resampler-5", f"{exports_}/resampler-5.2"]
    assert [each.status for each in both] == ["queued", "queued"]


def test_the_worker_tells_the_trainer_what_to_export_and_where(house, session, saved):
    exports.export(session, saved["best.ckpt"], "ann")
    job, attempt = house.claim(session)
    assert commands.prepare(session, job, attempt) == [
        "export", saved["epoch.ckpt"].path, f"{attempt.directory}/model", "--job-dir", attempt.directory,
    ]  # fmt: skip


def test_where_it_lies_is_kept_when_it_succeeds(house, session, saved):
    export = exports.export(session, saved["epoch.ckpt"], "ann")
    job, attempt = house.claim(session)
    end(session, job, attempt)
    assert (job.status, export.directory) == ("succeeded", f"{attempt.directory}/model")
    assert not exports.is_gone(export)


def test_one_file_has_one_export_whatever_its_names_and_however_often_it_is_asked_for(house, session, saved):
    first = exports.export(session, saved["epoch.ckpt"], "ann")
    assert exports.export(session, saved["best.ckpt"], "bob").id == first.id == exports.get(session, saved["best.ckpt"]).id
    end(session, *house.claim(session))
    assert exports.export(session, saved["best.ckpt"], "bob").directory
    assert len(all_jobs(session)) == 1


def test_one_that_failed_or_was_stopped_is_tried_again_as_another_attempt(house, session, saved):
    export = exports.export(session, saved["epoch.ckpt"], "ann")
    job, attempt = house.claim(session)
    end(session, job, attempt, JobStatus.failed, left=False, reason="infrastructure", detail="no space")
    assert exports.export(session, saved["epoch.ckpt"], "ann").id == export.id
    exports.stop(session, export, "ann")
    assert job.status == "stopped"
    exports.export(session, saved["epoch.ckpt"], "ann")
    job, attempt = house.claim(session)
    end(session, job, attempt)
    assert (job.status, job.attempt, export.directory) == ("succeeded", 2, f"{attempt.directory}/model")
    assert len(all_jobs(session)) == 1


def test_one_that_was_removed_is_made_again(house, session, saved):
    export = exports.export(session, saved["epoch.ckpt"], "ann")
    job, attempt = house.claim(session)
    end(session, job, attempt)
    (Path(export.directory) / "config.json").unlink()
    Path(export.directory).rmdir()
    assert exports.is_gone(export)
    exports.export(session, saved["epoch.ckpt"], "ann")
    again = exports.job_of(session, export)
    assert (again.id > job.id, again.status, export.directory) == (True, "queued", None)
    assert again.directory != job.directory


def test_a_stop_ends_it_at_once_while_it_waits_and_asks_its_worker_once_it_is_at_work(house, session, saved):
    export = exports.export(session, saved["epoch.ckpt"], "ann")
    exports.stop(session, export, "ann")
    with pytest.raises(Conflict, match="nothing to stop"):
        exports.stop(session, export, "ann")
    exports.export(session, saved["epoch.ckpt"], "ann")
    job, attempt = house.claim(session)
    exports.stop(session, export, "ann")
    assert job.status == "stopping"
    end(session, job, attempt, JobStatus.stopped, left=False)
    assert (job.status, export.directory) == ("stopped", None)


def test_a_success_that_left_no_model_is_a_failure_that_says_so(house, session, saved):
    export = exports.export(session, saved["epoch.ckpt"], "ann")
    job, attempt = house.claim(session)
    end(session, job, attempt, left=False)
    assert (job.status, job.reason, export.directory) == ("failed", "no_result", None)
    assert f"{attempt.directory}/model" in job.detail


def test_an_export_of_a_file_that_was_written_over_meanwhile_is_not_taken_for_the_one_that_was_asked_for(house, session, saved):
    session.delete(saved["epoch.ckpt"])
    session.flush()
    export = exports.export(session, saved["best.ckpt"], "ann")
    job, attempt = house.claim(session)
    note = rundir.note_path(Path(export.path))
    note.write_text(note.read_text().replace(export.sha256, "0" * 64))
    end(session, job, attempt)
    assert (job.status, export.directory) == ("failed", None)
    assert "was written over after this export was asked for" in job.detail


def test_in_a_store_the_row_says_whether_the_file_was_written_over(house, session, saved):
    saved["best.ckpt"].sqlmodel_update({"path": "s3://bucket/run-1/best.ckpt", "stored_at": db.now(session)})
    session.delete(saved["epoch.ckpt"])
    session.flush()
    export = exports.export(session, saved["best.ckpt"], "ann")
    job, attempt = house.claim(session)
    saved["best.ckpt"].sha256 = "0" * 64
    session.flush()
    end(session, job, attempt)
    assert (job.status, export.directory) == ("failed", None)
    assert "was written over after this export was asked for" in job.detail


def test_in_a_store_an_export_is_of_a_name_that_is_there_and_stays(house, session, saved):
    first, second = saved["epoch.ckpt"], saved["best.ckpt"]
    for each in (first, second):
        each.path = f"s3://bucket/run-1/{Path(each.path).name}"
    session.flush()
    with pytest.raises(BadInput, match=r"best\.ckpt: not in the store yet"):
        exports.export(session, second, "ann")
    second.stored_at = db.now(session)
    assert exports.export(session, second, "ann").path == second.path
    first.stored_at = db.now(session)
    assert exports.export(session, second, "ann").path == first.path
    first.removed_at = db.now(session)
    assert exports.export(session, second, "ann").path == second.path


def test_an_export_survives_that_its_checkpoint_makes_room_for_newer_ones(house, session, saved):
    export = exports.export(session, saved["epoch.ckpt"], "ann")
    job, attempt = house.claim(session)
    Path(export.path).unlink()
    session.delete(saved["epoch.ckpt"])
    session.flush()
    end(session, job, attempt)
    session.refresh(export)
    assert (job.status, export.checkpoint_id) == ("succeeded", None)
    assert exports.get(session, saved["best.ckpt"]).directory == export.directory


def test_a_lost_export_goes_to_the_next_worker(house, session, saved):
    export = exports.export(session, saved["epoch.ckpt"], "ann")
    job, _ = house.claim(session)
    jobs.lose(session, job, "sweep")
    job, attempt = house.claim(session)
    end(session, job, attempt)
    assert (job.attempt, job.status, export.directory) == (2, "succeeded", f"{attempt.directory}/model")


def test_what_cannot_be_exported_is_refused_before_anything_is_written(house, session, saved):
    with pytest.raises(NotFound, match="has not been exported"):
        exports.get(session, saved["epoch.ckpt"])
    Path(saved["epoch.ckpt"].path).write_bytes(b"torn")
    with pytest.raises(BadInput, match="damaged: 4 bytes instead of"):
        exports.export(session, saved["epoch.ckpt"], "ann")
    Path(saved["epoch.ckpt"].path).unlink()
    with pytest.raises(BadInput, match="there is no such checkpoint"):
        exports.export(session, saved["epoch.ckpt"], "ann")
    house.create(session, stage="vision")
    job, attempt = house.claim(session)
    house.tell(session, job, attempt, house.saved(attempt, 3, "best", "eyes.ckpt"))
    with pytest.raises(Invalid, match="stage vision, which learns no answers"):
        exports.export(session, checkpoints.at(session, Path(attempt.directory, "checkpoints", "eyes.ckpt")), "ann")
    assert session.exec(select(Export)).all() == all_jobs(session) == []


def test_it_stands_in_the_queue_and_among_troubles_under_its_checkpoint(house, session, saved):
    exports.export(session, saved["epoch.ckpt"], "ann")
    house.create(session)
    job, attempt = house.claim(session, session.get_one(Worker, 1))
    (entry, waiting) = queue.entries(session)
    assert (entry["kind"], entry["stage"], entry["export_id"]) == ("export", None, 1)
    assert "runs an export of run 1" in why_waiting(session, session.get_one(Job, waiting["id"]))
    end(session, job, attempt, JobStatus.failed, left=False, reason="bad_input", detail="no such file")
    troubles, _count = overview.attention(session)
    assert [(each.url, each.can_resume) for each in troubles if each.job.kind is JobKind.export] == [
        (f"/checkpoints/{saved['epoch.ckpt'].id}", False)
    ]
