"""A run is deleted with all that is its own, or not at all."""

import os
import time
from pathlib import Path

import pytest
from sqlmodel import SQLModel, select

from app.checkpoints import retention
from app.errors import Conflict, NotFound
from app.models import Evaluation, Event, Job, Run, Worker
from app.runs import copies, removal, stages
from app.runs import service as runs
from panollava.config import EvaluateConfig
from tests.app.test_retry_stage import rows, trained


def left(session):
    """Tables that hold a row, but for what is of no run."""
    tables = {name for name, table in SQLModel.metadata.tables.items() if session.execute(select(table).limit(1)).first()}
    return tables - {Worker.__tablename__, Event.__tablename__, "alembic_version"}


def test_its_rows_and_its_files_are_gone(house, session):
    run = trained(house, session, "resampler,finetune")
    directory = Path(run.directory)
    discarded = removal.delete_run(session, run, house.settings.artifacts)
    session.commit()
    assert left(session) == set()
    assert not directory.exists()
    removal.empty(discarded)
    assert list(house.settings.artifacts.rglob("*.ckpt")) == []


def test_another_run_is_left_alone(house, session):
    run, other = trained(house, session, "resampler"), trained(house, session, "resampler")
    removal.empty(removal.delete_run(session, run, house.settings.artifacts))
    assert session.exec(select(Run.id)).all() == [other.id]
    assert Path(session.exec(select(Job.directory)).one()).is_dir()


def test_its_evaluations_go_with_it(house, session):
    run = trained(house, session, "resampler")
    row = rows(session, run)[0]
    config = EvaluateConfig(checkpoint=str(Path(run.directory)), csv=str(house.root / "test.csv"))
    evaluation = Evaluation(
        name="e",
        run_id=run.id,
        checkpoint_id=row.best_checkpoint_id,
        config=config.model_dump(),
        request_hash="",
        created_at=run.created_at,
        created_by="ann",
    )
    session.add(evaluation)
    session.flush()
    directory = house.settings.artifacts / "evaluations" / "eval-1"
    directory.mkdir(parents=True)
    (directory / "predictions.jsonl").write_text("{}\n")
    session.add(
        Job(kind="evaluate", run_id=run.id, evaluation_id=evaluation.id, status="succeeded", directory=str(directory), queued_at=run.created_at)
    )
    session.flush()
    told = removal.contents(session, run, house.settings.artifacts)
    assert (told.checkpoints, told.evaluations, told.exports, list(told.heirs)) == (2, 1, 0, [])
    files = [path for root in (Path(run.directory), directory) for path in root.rglob("*") if path.is_file()]
    assert told.size == sum(path.stat().st_size for path in files)
    removal.delete_run(session, run, house.settings.artifacts)
    assert not directory.exists()
    assert left(session) == set()


@pytest.mark.parametrize("status", ["queued", "starting", "running", "stopping", "lost"])
def test_a_run_that_waits_or_is_at_work_is_not_deleted(house, session, status):
    run = house.create(session)
    job = session.exec(select(Job)).one()
    job.status = status
    session.add(job)
    session.flush()
    with pytest.raises(Conflict, match=f"Run 1 has a job that is {status}"):
        removal.delete_run(session, run, house.settings.artifacts, force=True)
    assert Path(run.directory).is_dir()


def test_one_whose_weights_others_started_from_is_deleted_only_by_force(house, session):
    run = trained(house, session, "resampler")
    made = copies.fork(session, run, {}, house.settings, "ann")
    with pytest.raises(Conflict, match=f"Run 1 gave the weights at the start of run {made.id}"):
        removal.delete_run(session, run, house.settings.artifacts)
    assert Path(run.directory).is_dir()
    removal.delete_run(session, run, house.settings.artifacts, force=True)
    assert session.exec(select(Run.id)).all() == [made.id]


def test_a_directory_that_is_not_ours_is_left_where_it_is(house, session):
    run = trained(house, session, "resampler")
    elsewhere = house.root / "elsewhere"
    elsewhere.mkdir()
    run.directory = str(elsewhere)
    session.flush()
    assert removal.delete_run(session, run, house.settings.artifacts) == []
    assert elsewhere.is_dir()


def aged(discarded):
    path = Path(discarded)
    name, _since, key = path.name.rsplit("~", 2)
    return str(path.rename(path.with_name(f"{name}~{int(time.time() - removal.SETTLED_SECONDS) - 1}~{key}")))


def test_killed_before_the_rows_were_gone_the_run_has_its_files_again(house):
    with house.writing.begin() as session:
        run = trained(house, session, "resampler")
    files = sorted(Path(run.directory).rglob("*"))
    with house.writing() as session:
        aged(removal.delete_run(session, session.get_one(Run, run.id), house.settings.artifacts)[0])
        session.rollback()
    assert not Path(run.directory).exists()
    with house.writing.begin() as session:
        assert removal.sweep(session, house.settings.artifacts) == []
    assert sorted(Path(run.directory).rglob("*")) == files


def test_killed_after_the_rows_were_gone_the_files_are_removed_at_the_next_start(house):
    with house.writing.begin() as session:
        run = trained(house, session, "resampler")
        path = aged(removal.delete_run(session, run, house.settings.artifacts)[0])
    with house.writing.begin() as session:
        assert removal.sweep(session, house.settings.artifacts) == [path]
    removal.empty([path])
    removal.empty([path])
    assert list(house.settings.artifacts.rglob("*.ckpt")) == []


def test_what_somebody_is_deleting_at_this_moment_is_not_swept(house, session):
    run = trained(house, session, "resampler")
    path = removal.delete_run(session, run, house.settings.artifacts)[0]
    assert removal.sweep(session, house.settings.artifacts) == []
    assert Path(path).is_dir()


@pytest.mark.parametrize("verb", [runs.resume, stages.retry, lambda session, run, actor: copies.fork(session, run, {}, None, actor)])
def test_what_is_asked_of_a_run_that_somebody_has_just_deleted_finds_none(house, verb):
    with house.writing.begin() as session:
        run = trained(house, session, "resampler")
    with house.writing.begin() as session:
        removal.delete_run(session, session.get_one(Run, run.id), house.settings.artifacts)
    with house.writing() as session, pytest.raises(NotFound, match="There is no run 1"):
        verb(session, run, "ann")


def test_what_cannot_be_removed_and_what_is_not_ours_keeps_no_server_from_starting(house, session, monkeypatch, caplog):
    run = trained(house, session, "resampler")
    path = aged(removal.delete_run(session, run, house.settings.artifacts)[0])
    trash = Path(path).parent
    (trash / "notes~of~mine").mkdir()
    assert removal.sweep(session, house.settings.artifacts) == [path]
    monkeypatch.setattr("os.rmdir", lambda *_args, **_more: (_ for _ in ()).throw(PermissionError("read-only disk")))
    removal.empty([path])
    assert "stays: read-only disk" in caplog.text
    monkeypatch.undo()
    removal.empty([path])
    assert [each.name for each in trash.iterdir()] == ["notes~of~mine"]


def test_what_would_go_is_told_although_files_go_while_they_are_counted(house, session, monkeypatch):
    run = trained(house, session, "resampler")
    size = removal.contents(session, run, house.settings.artifacts).size
    half = Path(run.directory) / "half.part"
    half.write_text("half")

    def stat(path, *args, look=os.stat, **how):
        if Path(path) == half:
            half.unlink(missing_ok=True)
        return look(path, *args, **how)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(os, "lstat", lambda path: stat(path, follow_symlinks=False))
    assert removal.contents(session, run, house.settings.artifacts).size == size
    monkeypatch.setattr(Path, "is_file", lambda _path: True)
    assert retention.released([half]) == 0
