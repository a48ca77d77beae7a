"""A stage behind a gate, and one that is trained again, with a worker and a trainer that are processes."""

from app.models import Run
from app.runs import service as runs
from app.runs import stages
from panollava.config import RunConfig
from panollava.stages import Stage
from worker.commands import CONFIG_FILE, prepare

WHOLE_WAY = ["queued", "starting", "running", "succeeded"]


def gated(house):
    """A run whose resampler comes to a val_loss of 0.05, where its finetune asks for 0.01."""
    job_id = house.submit("steady", "resampler,finetune")
    with house.sessions.writing.begin() as session:
        run = session.get_one(Run, house.job(job_id).run_id)
        run.config = run.config | {"stages": run.config["stages"] | {"finetune": run.config["stages"]["finetune"] | {"gate_below": 0.01}}}
        session.add(run)
    return run


def do(house, run, verb, *more):
    with house.sessions.writing.begin() as session:
        return verb(session, session.get_one(Run, run.id), *more)


def test_a_worker_leaves_a_gated_stage_alone_until_its_gate_is_opened(house):
    run = gated(house)
    house.work().take()
    assert [job.status for job in house.jobs()] == ["succeeded"]
    assert do(house, run, runs.status) == "gated"
    do(house, run, stages.open_gate, Stage.finetune, "ann")
    house.work("two").take()
    assert [house.states(job.id) for job in house.jobs()] == [WHOLE_WAY, WHOLE_WAY]
    job = house.jobs()[1]
    with house.sessions.reading() as session:
        arguments = prepare(session, job, house.attempts(job.id)[0])
    config = RunConfig.model_validate_json((house.directory(job.id) / CONFIG_FILE).read_bytes())
    assert ("--open-gate" in arguments, config.stages[Stage.finetune].gate_below) == (True, 0.01)  # it is not asked again, nor forgotten


def test_a_stage_is_trained_again_in_a_directory_of_its_own_with_every_point_once(house):
    job_id = house.submit("steady", steps=30)
    house.work().take()
    with house.sessions.writing.begin() as session:
        stages.retry_stage(session, session.get_one(Run, house.job(job_id).run_id), Stage.resampler, "ann")
    house.work("two").take()
    assert house.states(job_id) == WHOLE_WAY + WHOLE_WAY
    first, second = house.attempts(job_id)
    assert (first.number, second.number, second.resumed_step) == (1, 2, 0)
    config = RunConfig.model_validate_json((house.directory(job_id) / CONFIG_FILE).read_bytes())
    assert (config.init_from, second.directory.endswith("attempt-2")) == (None, True)
    house.assert_nothing_lost(job_id)
    assert {row.attempt for row in house.checkpoints(job_id)} == {1, 2}
