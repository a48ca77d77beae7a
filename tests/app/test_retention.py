"""What a run keeps of its checkpoints, what goes, and what room that makes."""

import os
from pathlib import Path

import pytest
from sqlmodel import select

from app.checkpoints import exports, retention
from app.checkpoints import service as checkpoints
from app.checkpoints.retention import Rule
from app.errors import Conflict
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.models import Checkpoint, JobStatus, Run
from app.runs import service as runs
from panollava import rundir
from panollava.events import CheckpointSaved
from tests.app.conftest import House

NOTHING = Rule(steps=0)


class Stage:
    """A stage of a run whose trainer has saved this and that."""

    def __init__(self, house: House, session, stage="resampler") -> None:
        self.house, self.session = house, session
        self.job, self.attempt = house.running(session, stage)
        self.run = session.get_one(Run, self.job.run_id)

    def save(self, step: int, kind: str = "step", **metrics: float) -> Path:
        self.house.tell(self.session, self.job, self.attempt, self.house.saved(self.attempt, step, kind, **metrics))
        return Path(self.attempt.directory, "checkpoints", f"{kind}={step:06d}.ckpt")

    def alias(self, path: Path, kind: str) -> Path:
        """best.ckpt or last.ckpt as the trainer makes them: a second name of the same file."""
        second, note = path.with_name(f"{kind}.ckpt"), rundir.read_note(path).model_copy(update={"kind": kind})
        rundir.link_whole(path, second)
        rundir.write_whole(rundir.note_path(second), note.model_dump_json())
        told = CheckpointSaved(path=f"checkpoints/{second.name}", **note.model_dump(include=checkpoints.NOTED))
        self.house.tell(self.session, self.job, self.attempt, told)
        return second

    def end(self, status: JobStatus = JobStatus.failed, best: Path | None = None) -> "Stage":
        name = best and str(best.relative_to(self.attempt.directory))
        assert finish(self.session, self.job.id, self.attempt.number, status, actor="test", reason=str(status), best=name)
        return self

    def plan(self, rule: Rule = NOTHING) -> tuple[dict[str, list[str]], list[str]]:
        planned = retention.plan(self.session, self.run, rule)
        return {Path(each.row.path).name: list(each.reasons) for each in planned.stay}, [Path(each.row.path).name for each in planned.go]


@pytest.fixture
def trained(house, session):
    """Step checkpoints 1 to 4, epochs 5 (best) and 6 (last), ended by a failure."""
    stage = Stage(house, session)
    for step in (1, 2, 3, 4):
        stage.save(step)
    stage.alias(stage.save(5, "epoch", val_loss=0.5), "best")
    stage.alias(stage.save(6, "epoch", val_loss=0.6), "last")
    return stage


def test_the_best_and_the_last_stay_and_as_many_step_checkpoints_as_the_rule_says(trained):
    trained.end()
    stay, go = trained.plan(Rule(steps=2))
    assert stay == {
        "epoch=000006.ckpt": ["last", "resuming goes on from it"], "epoch=000005.ckpt": ["best"],
        "step=000004.ckpt": ["one of the newest"], "step=000003.ckpt": ["one of the newest"],
    }  # fmt: skip
    assert go == ["step=000002.ckpt", "step=000001.ckpt"]


def test_a_stage_at_work_keeps_everything(trained):
    stay, go = trained.plan()
    assert go == [] and all("its stage is at work" in reasons for reasons in stay.values())


def test_what_is_pinned_exported_final_or_handed_on_stays(house, session, trained):
    path = trained.save(3, "final")
    trained.end()
    pinned, handed, exported = (checkpoints.at(session, trained_path(trained, step)) for step in (1, 2, 3))
    retention.pin(session, pinned, True)
    house.create(session, "resampler", init_from=handed.path)
    exports.export(session, exported, "ann")
    jobs.request_stop(session, exports.job_of(session, exports.get(session, exported)), "ann")
    stay, go = trained.plan()
    assert (stay["step=000001.ckpt"], stay["step=000002.ckpt"]) == (["pinned"], ["another stage started from it"])
    assert "exported" in stay["step=000003.ckpt"] and "final weights" in stay["step=000003.ckpt"] and path.exists()
    assert go == ["step=000004.ckpt"]
    retention.pin(session, pinned, False)
    assert trained.plan()[1] == ["step=000004.ckpt", "step=000001.ckpt"]


def trained_path(trained, step):
    return Path(trained.attempt.directory, "checkpoints", f"step={step:06d}.ckpt")


def test_a_file_is_counted_once_and_not_while_another_name_of_it_stays(tmp_path):
    one, second, outside = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    one.write_bytes(b"x" * 100)
    os.link(one, second)
    assert retention.released([one]) == 0
    assert retention.released([one, second, one, tmp_path / "not there"]) == 100
    os.link(one, outside)
    assert retention.released([one, second]) == 0


def test_files_and_rows_go_together_and_as_many_bytes_as_the_preview_said(house, session, trained):
    old_best = trained.alias(trained_path(trained, 1), "best")  # a second name of a file, which no longer is the best
    trained.alias(Path(trained.attempt.directory, "checkpoints", "epoch=000005.ckpt"), "best")
    trained.end()
    planned = retention.plan(session, trained.run, NOTHING)
    directory = old_best.parent
    before = sum(inode_sizes(directory))
    done = retention.apply(session, trained.run, NOTHING)
    assert before - sum(inode_sizes(directory)) == done.freed == planned.freed > 0
    assert {path.name for path in directory.glob("*.ckpt")} == {"best.ckpt", "last.ckpt", "epoch=000005.ckpt", "epoch=000006.ckpt"}
    assert {Path(row.path).name for row in session.exec(select(Checkpoint))} == {path.name for path in directory.glob("*.ckpt")}
    assert retention.apply(session, trained.run, NOTHING).go == []
    runs.resume(session, trained.run, "ann")


def inode_sizes(directory: Path) -> list[int]:
    return list({path.stat().st_ino: path.stat().st_size for path in directory.iterdir()}.values())


def test_only_what_was_previewed_goes(session, trained):
    trained.end()
    wanted = checkpoints.at(session, trained_path(trained, 2))
    done = retention.apply(session, trained.run, NOTHING, only=[wanted.id, 999])
    assert [each.row.step for each in done.go] == [2]
    assert trained_path(trained, 1).exists() and not trained_path(trained, 2).exists()


def test_whoever_is_killed_between_files_and_rows_can_do_it_again(session, trained, monkeypatch):
    trained.end()
    session.commit()
    unlink = Path.unlink

    def dies(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.name == "step=000003.ckpt":
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", dies)
    with pytest.raises(KeyboardInterrupt):
        retention.apply(session, trained.run, NOTHING)
    session.rollback()
    monkeypatch.undo()
    assert not trained_path(trained, 4).exists() and checkpoints.at(session, trained_path(trained, 4))
    retention.apply(session, trained.run, NOTHING)
    assert {row.kind for row in session.exec(select(Checkpoint))} == {"epoch", "best", "last"}


def test_one_checkpoint_is_deleted_unless_it_is_kept_for_something(session, trained):
    trained.end()
    best, step = (checkpoints.at(session, Path(trained.attempt.directory, "checkpoints", name)) for name in ("best.ckpt", "step=000001.ckpt"))
    with pytest.raises(Conflict, match=r"is kept: best\."):
        retention.delete(session, best)
    size = step.size + rundir.note_path(Path(step.path)).stat().st_size
    assert retention.delete(session, step) == size
    assert checkpoints.at(session, Path(step.path)) is None


def test_a_pin_is_the_file_s_not_the_name_s(session, trained):
    pinned = checkpoints.at(session, Path(trained.attempt.directory, "checkpoints", "epoch=000006.ckpt"))
    retention.pin(session, pinned, True)
    assert checkpoints.at(session, Path(pinned.path).with_name("last.ckpt")).pinned
    trained.alias(trained.save(7, "epoch", val_loss=0.7), "last")
    assert pinned.pinned and not checkpoints.at(session, Path(pinned.path).with_name("last.ckpt")).pinned


def test_with_an_automatic_rule_a_stage_that_succeeds_makes_room_itself(session, trained):
    retention.keep(session, trained.run, Rule(steps=1, automatic=True))
    trained.end(JobStatus.succeeded, best=Path(trained.attempt.directory, "checkpoints", "epoch=000005.ckpt"))
    assert {path.name for path in trained_path(trained, 1).parent.glob("step*.ckpt")} == {"step=000004.ckpt"}


def test_a_directory_that_cannot_be_written_fails_no_training(session, trained, monkeypatch):
    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    retention.keep(session, trained.run, Rule(steps=1, automatic=True))
    monkeypatch.setattr(Path, "unlink", refused)
    trained.end(JobStatus.succeeded, best=Path(trained.attempt.directory, "checkpoints", "epoch=000005.ckpt"))
    assert trained.job.status == "succeeded" and trained_path(trained, 1).exists()
    assert checkpoints.at(session, trained_path(trained, 1))
