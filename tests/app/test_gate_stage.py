"""A stage starts only if the one before it has come far enough; a person can open its gate."""

import pytest

from app.errors import Conflict
from app.jobs import queue
from app.jobs import service as jobs
from app.jobs.finish import finish
from app.models import JobStatus
from app.runs import copies, stages
from app.runs import service as runs
from app.runs.table import lists, rows
from app.runs.table.lists import Shown, Wanted
from panollava.config import parse
from panollava.errors import BadInput
from panollava.stages import Stage
from tests.app.test_retry_stage import BOTH, train


def gated(house, session, val_loss=2.34, **more):
    """A run whose resampler was not good enough for its finetune."""
    run = house.create(session, stage=BOTH, stages={"finetune": {"gate_below": 2.1}}, **more)
    train(house, session, val_loss)
    return run


def state(session, run):
    return runs.state(session, run).stages[1]


def test_a_closed_gate_is_a_state_with_its_reason_and_nothing_is_queued(house, session):
    run = gated(house, session)
    assert runs.status(session, run) == "gated"
    assert state(session, run).row.gated_because == "resampler reached val_loss 2.34, the gate asks for below 2.1"
    assert state(session, run).job is None
    assert jobs.claim(session, house.worker(session)) is None


def test_a_gate_that_holds_lets_the_chain_go_on(house, session):
    run = gated(house, session, val_loss=2.0)
    assert (runs.status(session, run), state(session, run).row.gated_because) == ("queued", None)


def test_the_gate_asks_for_below_not_for_at_most(house, session):
    assert runs.status(session, gated(house, session, val_loss=2.1)) == "gated"


def test_without_a_val_loss_the_gate_is_closed_and_says_so(house, session):
    run = house.create(session, stage=BOTH, stages={"finetune": {"gate_below": 2.1}})
    job, attempt = house.claim(session)
    best = house.saved(attempt, 5, "epoch")
    house.tell(session, job, attempt, best)
    finish(session, job.id, 1, JobStatus.succeeded, actor="one", reason="succeeded", best=best.path)
    assert state(session, run).row.gated_because == "resampler handed over a checkpoint without a val_loss, the gate asks for below 2.1"


def test_a_person_opens_the_gate_and_the_timeline_has_both(house, session):
    run = gated(house, session)
    stages.open_gate(session, run, Stage.finetune, "ann")
    told = [(each["new"], each["actor"], each["reason"]) for each in queue.timeline(session, run.id) if each["stage"] == "finetune"]
    assert told == [("gated", "one", "resampler reached val_loss 2.34, the gate asks for below 2.1"), ("queued", "ann", "gate_opened")]
    train(house, session)
    assert runs.status(session, run) == "succeeded"


def test_opened_twice_it_is_queued_once(house, session):
    run = gated(house, session)
    stages.open_gate(session, run, Stage.finetune, "ann")
    with pytest.raises(Conflict, match="Stage finetune of run 1 is queued; there is no closed gate to open"):
        stages.open_gate(session, run, Stage.finetune, "bob")


def test_trained_again_the_parent_is_held_against_the_gate_again(house, session):
    run = gated(house, session)
    stages.retry_stage(session, run, Stage.resampler, "ann")
    assert [each.status for each in runs.state(session, run).stages] == ["queued", "waiting"]
    train(house, session, 2.2)
    assert state(session, run).row.gated_because == "resampler reached val_loss 2.2, the gate asks for below 2.1"
    stages.retry_stage(session, run, Stage.resampler, "ann")
    train(house, session, 1.9)
    assert [each.status for each in runs.state(session, run).stages] == ["succeeded", "queued"]


def test_a_stage_that_had_failed_is_held_back_by_its_gate_too(house, session):
    run = gated(house, session, val_loss=2.0)
    job, _attempt = house.claim(session)
    finish(session, job.id, 1, JobStatus.failed, actor="one", reason="exit_code")
    stages.retry_stage(session, run, Stage.resampler, "ann")
    train(house, session, 2.5)
    assert (runs.status(session, run), job.status) == ("gated", "failed")
    stages.open_gate(session, run, Stage.finetune, "ann")
    assert (runs.status(session, run), job.resume_from) == ("queued", None)


def test_a_gate_before_the_first_of_all_stages_is_refused():
    with pytest.raises(BadInput, match="no stage comes before vision"):
        parse({"stages": {"vision": {"gate_below": 1.0}}})


def test_weights_that_were_let_through_once_are_let_through_again_and_others_are_not(house, session):
    run = gated(house, session)
    stages.open_gate(session, run, Stage.finetune, "ann")
    train(house, session)
    stages.retry_stage(session, run, Stage.finetune, "ann")
    assert runs.status(session, run) == "queued"
    train(house, session)
    stages.retry_stage(session, run, Stage.resampler, "ann")
    train(house, session, 2.5)
    stages.retry_stage(session, run, Stage.finetune, "ann")
    assert runs.status(session, run) == "gated"


@pytest.mark.parametrize("verb", [runs.stop, runs.save, runs.resume, stages.retry])
def test_other_verbs_point_to_the_gate(house, session, verb):
    run = gated(house, session)
    with pytest.raises(Conflict, match="gate"):
        verb(session, run, "ann")


def test_lists_show_and_find_gated_runs_with_their_reason(house, session):
    run = gated(house, session)
    house.create(session)
    assert [each.id for each in lists.page(session, Wanted(status=Shown.gated))] == [run.id]
    row = rows.of(session, [run])[0]
    assert (row.shown, row.waiting_because) == (Shown.gated, "resampler reached val_loss 2.34, the gate asks for below 2.1")


# at the start of a run


def test_a_fork_meets_the_gate_of_the_stage_that_it_starts_and_a_person_opens_it(house, session):
    run = gated(house, session)
    made = copies.fork(session, run, {}, house.settings, "ann")
    assert (runs.status(session, made), runs.state(session, made).current.job) == ("gated", None)
    assert runs.state(session, made).current.row.gated_because == "resampler reached val_loss 2.34, the gate asks for below 2.1"
    stages.open_gate(session, made, Stage.finetune, "ann")
    assert runs.status(session, made) == "queued"


def test_a_fork_from_a_checkpoint_that_is_good_enough_starts_and_so_does_one_with_another_gate(house, session):
    run = gated(house, session, val_loss=2.0)
    assert runs.status(session, copies.fork(session, run, {}, house.settings, "ann")) == "queued"
    lower = {"stages": {"finetune": {"gate_below": 1.5}}}
    assert runs.status(session, copies.fork(session, run, lower, house.settings, "ann")) == "gated"


def test_a_fork_that_goes_on_with_the_same_stage_is_past_its_gate(house, session):
    run = gated(house, session)
    stages.open_gate(session, run, Stage.finetune, "ann")
    train(house, session, 5.0)
    assert runs.status(session, copies.fork(session, run, {}, house.settings, "ann", stages=[Stage.finetune])) == "queued"


@pytest.mark.parametrize(("gate", "status"), [(0.6, "queued"), (0.4, "gated")])
def test_a_file_that_no_run_of_ours_has_made_meets_the_gate_by_its_note(house, session, checkpoint, gate, status):
    run = house.create(session, "finetune", init_from=str(checkpoint), stages={"finetune": {"gate_below": gate}})
    assert runs.status(session, run) == status


def test_a_fork_that_takes_the_newer_weights_of_its_parent_meets_its_gate_again(house, session):
    run = house.create(session, stage="resampler", stages={"finetune": {"gate_below": 2.1}})
    train(house, session, 2.0)
    made = copies.fork(session, run, {}, house.settings, "ann")
    train(house, session)
    stages.retry_stage(session, run, Stage.resampler, "ann")
    train(house, session, 2.5)
    stages.retry_stage(session, made, Stage.finetune, "ann")
    assert runs.status(session, made) == "gated"
