"""A checkpoint that somebody wants stays while its stage is at work, although the trainer makes room for newer ones."""

from pathlib import Path

import pytest

from app.checkpoints import exports, retention
from app.checkpoints import service as checkpoints
from app.errors import Conflict
from app.evaluations import service as evaluations
from app.models import JobStatus
from app.runs import copies
from panollava import rundir
from panollava.config import EvaluateConfig
from panollava.errors import BadInput
from panollava.events import CheckpointRemoved
from tests.app.test_retention import Stage


@pytest.fixture
def at_work(house, session):
    stage = Stage(house, session)
    for step in (1, 2, 3):
        stage.save(step)
    return stage


def make_room(stage, path: Path) -> None:
    """As its trainer does."""
    if rundir.make_room(path):
        told = CheckpointRemoved(path=str(path.relative_to(Path(stage.attempt.directory).resolve())))
        assert stage.house.tell(stage.session, stage.job, stage.attempt, told)


def row(stage, step: int):
    return checkpoints.at(stage.session, path_of(stage, step))


def path_of(stage, step: int) -> Path:
    return Path(stage.attempt.directory).resolve() / "checkpoints" / f"step={step:06d}.ckpt"


def evaluate(stage, checkpoint):
    config = EvaluateConfig(checkpoint=checkpoint.path, csv=str(stage.house.root / "test.csv"))
    return evaluations.create(stage.session, config, stage.house.settings, actor="ann")


WANT = {
    "pinned": lambda stage, checkpoint: retention.pin(stage.session, checkpoint, True),
    "forked": lambda stage, checkpoint: copies.fork(stage.session, stage.run, {}, stage.house.settings, "ann", checkpoint_id=checkpoint.id),
    "evaluated": evaluate,
    "exported": lambda stage, checkpoint: exports.export(stage.session, checkpoint, "ann"),
}


@pytest.mark.parametrize("want", WANT)
def test_it_stays_and_its_neighbour_goes(at_work, want):
    WANT[want](at_work, row(at_work, 1))
    for step in (1, 2):
        make_room(at_work, path_of(at_work, step))
    assert row(at_work, 1) and rundir.verify(path_of(at_work, 1)).step == 1
    assert row(at_work, 2) is None and not path_of(at_work, 2).exists()


def test_what_was_pinned_goes_as_any_other_once_it_is_pinned_no_more_and_its_stage_has_ended(at_work):
    retention.pin(at_work.session, row(at_work, 1), True)
    make_room(at_work, path_of(at_work, 1))
    retention.pin(at_work.session, row(at_work, 1), False)
    at_work.end()
    assert at_work.plan(retention.Rule(steps=1))[1] == ["step=000002.ckpt", "step=000001.ckpt"]


def test_what_starts_from_last_ckpt_starts_from_the_file_that_this_was(house, session, at_work):
    last = at_work.alias(path_of(at_work, 3), "last")
    fork = house.create(session, "finetune", init_from=str(last))
    evaluation = evaluate(at_work, checkpoints.at(session, last))
    at_work.alias(at_work.save(4), "last")
    make_room(at_work, path_of(at_work, 3))
    assert fork.config["init_from"] == evaluation.config["checkpoint"] == str(path_of(at_work, 3))
    assert fork.origin["step"] == row(at_work, 3).step == rundir.verify(path_of(at_work, 3)).step == 3


@pytest.mark.parametrize("want", WANT)
def test_what_the_trainer_has_removed_a_moment_ago_is_refused(at_work, want):
    wanted = row(at_work, 1)
    assert rundir.make_room(path_of(at_work, 1))
    with pytest.raises((Conflict, BadInput)):
        WANT[want](at_work, wanted)


def test_a_pin_says_that_the_trainer_has_removed_it(at_work):
    wanted = row(at_work, 1)
    assert rundir.make_room(path_of(at_work, 1))
    with pytest.raises(Conflict, match=r"step=000001.ckpt cannot be kept.*removed it to make room"):
        retention.pin(at_work.session, wanted, True)
    assert not list(path_of(at_work, 1).parent.glob("step=000001*"))


def test_a_pin_that_comes_while_the_trainer_is_about_to_remove_it_is_heard(at_work, monkeypatch):
    path, replace = path_of(at_work, 1), Path.replace

    def pinned_first(self: Path, target: Path) -> Path:
        if self == path:
            monkeypatch.undo()
            rundir.keep(path)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", pinned_first)
    assert not rundir.make_room(path)
    assert rundir.verify(path).step == 1


def test_of_a_stage_that_has_ended_nothing_is_asked_of_a_trainer(at_work):
    at_work.end(JobStatus.stopped)
    retention.pin(at_work.session, row(at_work, 1), True)
    assert not list(path_of(at_work, 1).parent.glob("*.keep"))
