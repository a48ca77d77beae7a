"""New runs from a run there is: copies of it, and later stages from its checkpoints, with a lineage that lasts."""

import pytest
from sqlmodel import select

from app.errors import Conflict, Invalid, NotFound
from app.models import Checkpoint, StageRun
from app.runs import copies, lineage, removal, stages
from app.runs import service as runs
from panollava.config import RunConfig
from panollava.errors import BadInput
from panollava.stages import Stage
from tests.app.test_retry_stage import BOTH, rows, stale, train, trained


def fork(house, session, run, changes=None, **more):
    return copies.fork(session, run, changes or {}, house.settings, "ann", **more)


def best(session, run, stage=0):
    return session.get_one(Checkpoint, rows(session, run)[stage].best_checkpoint_id)


def test_a_fork_trains_the_later_stages_from_the_checkpoint(house, session):
    run = trained(house, session, "resampler", name="vlm")
    made = fork(house, session, run)
    assert (made.config["stage"], made.name) == (["finetune"], "vlm-2")
    assert rows(session, made)[0].init_checkpoint == best(session, run).path
    assert runs.status(session, made) == "queued"


def test_a_fork_keeps_from_what_it_was_made(house, session):
    run = trained(house, session, "resampler")
    start = best(session, run)
    made = fork(house, session, run, checkpoint_id=start.id)
    assert made.parent_id == run.id
    assert made.origin == {"run_id": run.id, "stage": "resampler", "checkpoint_id": start.id, "step": start.step, "sha256": start.sha256}
    assert [(link.run_id, link.name, link.label) for link in lineage.ancestors(session, made)] == [(run.id, run.name, "resampler@5")]


def test_any_checkpoint_may_start_the_same_stage_or_a_later_one_and_settings_be_others(house, session):
    run = trained(house, session, "resampler")
    last = session.exec(select(Checkpoint).where(Checkpoint.kind == "last")).one()
    made = fork(house, session, run, {"stages": {"resampler": {"lr": 0.5}}}, checkpoint_id=last.id, stages=[Stage.resampler, Stage.finetune])
    assert (made.config["stage"], made.config["stages"]["resampler"]["lr"]) == (["resampler", "finetune"], 0.5)
    assert made.config["stages"]["finetune"] == run.config["stages"]["finetune"]
    assert made.origin["step"] == last.step


def test_one_parent_has_several_forks(house, session):
    run = trained(house, session, "resampler")
    made = [fork(house, session, run) for _ in range(3)]
    assert [child.run_id for child in lineage.children(session, run)] == [each.id for each in made]
    assert len({each.name for each in made}) == 3


def test_what_cannot_be_started_is_refused_with_the_reason(house, session):
    run, other = trained(house, session, BOTH), trained(house, session, "resampler")
    with pytest.raises(BadInput, match="cannot start the earlier stage vision"):
        fork(house, session, run, stages=[Stage.vision])
    with pytest.raises(Invalid, match="finetune is the last one"):
        fork(house, session, run, checkpoint_id=best(session, run, 1).id)
    with pytest.raises(NotFound, match="is of run 2, not of run 1"):
        fork(house, session, run, checkpoint_id=best(session, other).id)
    with pytest.raises(NotFound, match="has a best checkpoint yet"):
        fork(house, session, house.create(session))
    with pytest.raises(Invalid, match=r"config\.stage: a fork's stages and checkpoint are named beside its config"):
        fork(house, session, run, {"stage": "finetune"})
    with pytest.raises(BadInput, match="no such setting"):
        fork(house, session, run, {"colour": 1}, stages=[Stage.finetune])


def test_a_checkpoint_whose_file_is_gone_starts_nothing(house, session):
    run = trained(house, session, "resampler")
    (house.root / best(session, run).path).unlink()
    with pytest.raises(BadInput, match="no such checkpoint"):
        fork(house, session, run)


def test_the_same_request_sent_again_makes_one_run(house, session):
    run = trained(house, session, "resampler")
    assert fork(house, session, run, request_key="k").id == fork(house, session, run, request_key="k").id
    with pytest.raises(Conflict, match="asked for something else"):
        fork(house, session, run, {"seed": 7}, request_key="k")


def test_a_clone_is_what_the_run_was_asked_for_under_a_name_of_its_own(house, session):
    run = house.create(session, stage=BOTH, name="vlm", seed=3)
    made = copies.clone(session, run, {"seed": 4}, house.settings, "ann", priority=2, request_key="k")
    assert (made.name, made.config["seed"], made.config["stage"], made.priority, made.parent_id) == ("vlm-2", 4, ["resampler", "finetune"], 2, None)
    assert copies.clone(session, run, {"seed": 4}, house.settings, "ann", priority=2, request_key="k").id == made.id


# when the parent is trained again


def test_forks_are_stale_once_their_parent_is_trained_again_and_take_its_new_weights(house, session):
    run = trained(house, session, "resampler")
    made = fork(house, session, run)
    train(house, session)
    grandchild = fork(house, session, made, checkpoint_id=best(session, made).id, stages=[Stage.finetune])
    train(house, session)
    stages.retry_stage(session, run, Stage.resampler, "ann")
    assert (stale(session, made), stale(session, grandchild)) == (["finetune"], ["finetune"])
    assert [child.stale_because for child in lineage.children(session, run)] == ["resampler of run 1 was begun again"]
    with pytest.raises(Conflict, match="Stage resampler of run 1, from which run 2 starts, is queued"):
        stages.retry_stage(session, made, Stage.finetune, "ann")
    train(house, session, 0.25)
    stages.retry_stage(session, made, Stage.finetune, "ann")
    assert (stale(session, made), stale(session, grandchild)) == ([], ["finetune"])
    assert rows(session, made)[0].init_checkpoint == best(session, run).path
    assert made.origin["checkpoint_id"] == best(session, run).id


def test_only_what_came_of_that_stage_is_stale(house, session):
    run = trained(house, session, BOTH)
    of_resampler = fork(house, session, run, checkpoint_id=best(session, run).id)
    of_finetune = fork(house, session, run, stages=[Stage.finetune])
    stages.retry_stage(session, run, Stage.finetune, "ann")
    assert (stale(session, of_resampler), stale(session, of_finetune)) == ([], ["finetune"])


def test_the_lineage_outlives_the_parent(house, session):
    run = trained(house, session, "resampler")
    made = fork(house, session, run)
    removal.delete_run(session, run, house.settings.artifacts, force=True)
    link = lineage.ancestors(session, made)[0]
    assert (link.run_id, link.name, link.label) == (1, None, "resampler@5")
    assert session.exec(select(StageRun.run_id)).all() == [made.id]


def test_a_run_from_an_address_of_a_store_knows_its_parent(house, session, monkeypatch):
    run = trained(house, session, "resampler")
    start = best(session, run)
    start.path = "s3://bucket/prefix/best.ckpt"
    session.flush()
    monkeypatch.setattr("app.runs.service.resolve", lambda config, settings, _read_note: config)  # there is no store to look into
    made = runs.create(session, RunConfig(name="heir", stage="finetune", init_from=start.path), house.settings, "ann")
    assert (made.parent_id, made.origin["checkpoint_id"]) == (run.id, start.id)
