"""A training from a terminal becomes a run, as often as it is imported, and only what is new is taken in."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlmodel import col, select

from app import db
from app.errors import Conflict, Forbidden, Invalid
from app.housekeeping import importing
from app.housekeeping.importing import Importer
from app.jobs import service as jobs
from app.jobs import states
from app.logs import service as logs
from app.metrics import service as metrics
from app.models import Attempt, Checkpoint, Job, Run, StageRun, Transition
from app.runs import service as runs
from panollava import rundir
from panollava.config import RunConfig
from panollava.events import EventWriter, Metric, Progress, Sample, StageEvent
from tests.app.conftest import write_checkpoint

LONG_AGO = 1_700_000_000.0


class Terminal:
    """A working directory in which somebody trains, with the files that `panollava train` leaves."""

    def __init__(self, root: Path, name: str = "vlm") -> None:
        self.root, self.name, self.t = root, name, LONG_AGO
        root.mkdir(exist_ok=True)
        (root / "train.csv").write_text("url,query,annotation\na.jpg,What?,This.\n")

    def directory(self, stage: str) -> Path:
        return self.root / "runs" / f"{self.name}_{stage}"

    def begin(self, stage: str, step: int = 0, chain: str = "", log: bool = True, **config) -> "Sitting":
        self.t += 100
        directory = self.directory(stage)
        values = {"name": self.name, "stage": chain or stage, "csv_train": "train.csv", "csv_val": "train.csv"} | config
        rundir.write_whole(directory / "config.json", RunConfig(**values).model_dump_json())
        sitting = Sitting(self, stage, directory)
        if log:
            sitting.log = rundir.log_path(self.root / "logs", RunConfig(**values).stage[-1] if not chain else stage_of(stage), local(self.t))
            sitting.log.parent.mkdir(exist_ok=True)
            sitting.log.write_text(f"10:00:00 I log file\n10:00:00 I {rundir.WHICH_STAGE % (stage, f'runs/{self.name}_{stage}')}\n")
        sitting.say(StageEvent(name=stage, status="resumed" if step else "started", step=step))
        return sitting

    def imported(self, house, path: str | Path = "runs", **more):
        return Importer(house.writing, house.settings, **more).bring_in(str(self.root / path))


def stage_of(name):
    return RunConfig(stage=name).stage[0]


def local(t: float) -> datetime:
    return datetime.fromtimestamp(t, UTC).astimezone()


class Sitting:
    """One process that trains a stage."""

    def __init__(self, terminal: Terminal, stage: str, directory: Path) -> None:
        self.terminal, self.stage, self.directory = terminal, stage, directory
        self.log = None

    def say(self, *told) -> None:
        writer = EventWriter(self.directory / "events.jsonl")
        for event in told:
            self.terminal.t += 1
            writer.write(event.model_copy(update={"t": self.terminal.t}))
        writer.close()

    def steps(self, first: int, last: int) -> "Sitting":
        for step in range(first, last + 1):
            self.say(Metric(step=step, epoch=step / 10, values={"train_loss": 1 / step}), Progress(done=step, total=10, unit="steps"))
            with self.log.open("a") if self.log else open(os.devnull, "w") as log:
                log.write(f"step {step}\n")
        return self

    def save(self, step: int, kind: str = "step", **metrics: float) -> str:
        path = self.directory / "checkpoints" / f"{kind}={step:06d}.ckpt"
        told = write_checkpoint(path, step, kind, metrics)
        self.say(told.model_copy(update={"path": f"checkpoints/{path.name}"}))
        return f"checkpoints/{path.name}"

    def end(self, status: str, **more) -> None:
        self.say(StageEvent(name=self.stage, status=status, **more))


@pytest.fixture
def terminal(house):
    return Terminal(house.root / "work")


def points(session, run_id, stage=None):
    """Of each attempt that is drawn: its number and the steps of its line."""
    lines = metrics.query(session, run_id, ["train_loss"], stage)
    return [(line.attempt, line.buckets["last_step"].tolist()) for line in lines]


def job_of(session, run_id, stage):
    query = select(Job).join(StageRun, col(StageRun.id) == Job.stage_id).where(StageRun.run_id == run_id, StageRun.stage == stage)
    return session.exec(query.order_by(col(Job.id).desc())).first()


def log_of(session, job, attempt=None):
    return logs.read(session, job, attempt).text


def test_a_chain_becomes_a_run_with_its_stages_points_logs_checkpoints_and_samples(house, terminal):
    vision = terminal.begin("vision", chain="vision,resampler").steps(1, 10)
    best = vision.save(10, "epoch", val_loss=0.5)
    vision.end("succeeded", best=best)
    resampler = terminal.begin("resampler", chain="vision,resampler").steps(1, 4)
    resampler.say(Sample(step=4, url="a.jpg", query="What?", references=["This."], prediction="That."))
    resampler.end("failed", reason="Diverged", detail="The loss is NaN.")
    first, second = terminal.imported(house)
    assert (first.stage, first.came_to, second.stage, second.came_to) == ("vision", "succeeded", "resampler", "failed")
    assert first.run_id == second.run_id and first.remarks == second.remarks == []
    with house.reading() as session:
        run = session.get_one(Run, first.run_id)
        assert (run.name, runs.status(session, run), run.imported_from) == ("vlm", "failed", str(terminal.root / "runs" / "vlm"))
        assert points(session, run.id, "vision") == [(1, list(range(1, 11)))] and points(session, run.id, "resampler") == [(1, [1, 2, 3, 4])]
        job = job_of(session, run.id, "resampler")
        assert (job.reason, job.detail) == ("diverged", "The loss is NaN.")
        assert log_of(session, job) == resampler.log.read_text()
        checkpoint = session.exec(select(Checkpoint)).one()
        assert checkpoint.path == str(terminal.directory("vision") / best)
        assert session.exec(select(StageRun.best_checkpoint_id).where(StageRun.stage == "vision")).one() == checkpoint.id
        assert session.exec(select(StageRun.init_checkpoint).where(StageRun.stage == "resampler")).one() == checkpoint.path
        assert session.exec(select(Attempt.ended_at).where(Attempt.job_id == job.id)).one() == datetime.fromtimestamp(terminal.t, UTC)


def test_importing_again_takes_in_what_is_new_and_nothing_twice(house, terminal):
    sitting = terminal.begin("vision").steps(1, 3)
    (first,) = terminal.imported(house)
    assert first.came_to == "running" and first.taken > 0
    (again,) = terminal.imported(house)
    assert (again.run_id, again.taken) == (first.run_id, 0)
    sitting.steps(4, 6).end("stopped", step=6)
    with (terminal.directory("vision") / "events.jsonl").open("ab") as file:
        file.write(b'{"type":"met')
    (last,) = terminal.imported(house, "runs/vlm_vision")
    assert (last.run_id, last.came_to) == (first.run_id, "stopped")
    assert terminal.imported(house)[0].taken == 0
    with house.reading() as session:
        assert points(session, first.run_id) == [(1, [1, 2, 3, 4, 5, 6])]
        assert log_of(session, job_of(session, first.run_id, "vision")) == sitting.log.read_text()


def test_a_training_that_was_killed_and_resumed_in_the_terminal_is_two_attempts_and_the_chart_is_cut(house, terminal):
    killed = terminal.begin("vision").steps(1, 8)
    killed.save(5)
    resumed = terminal.begin("vision", step=5).steps(6, 10)
    resumed.end("succeeded", best=resumed.save(10, "epoch", val_loss=0.1))
    (found,) = terminal.imported(house)
    assert found.came_to == "succeeded"
    with house.reading() as session:
        assert points(session, found.run_id) == [(1, [1, 2, 3, 4, 5]), (2, [6, 7, 8, 9, 10])]
        job = job_of(session, found.run_id, "vision")
        assert (log_of(session, job, 1), log_of(session, job, 2)) == (killed.log.read_text(), resumed.log.read_text())
        history = [(str(each.new), each.reason) for each in session.exec(select(Transition).order_by(col(Transition.id)))]
        assert ("failed", "no_outcome") in history and history[-1] == ("succeeded", "succeeded")


def test_a_stage_that_was_trained_on_after_it_had_succeeded_has_another_job(house, terminal):
    first = terminal.begin("vision").steps(1, 2)
    first.end("succeeded", best=first.save(2, "epoch", val_loss=0.2))
    second = terminal.begin("vision", step=2).steps(3, 4)
    second.end("succeeded", best=second.save(4, "epoch", val_loss=0.1))
    (found,) = terminal.imported(house)
    with house.reading() as session:
        assert [job.status for job in session.exec(select(Job))] == ["succeeded", "succeeded"]
        assert [steps for _, steps in points(session, found.run_id)] == [[1, 2], [3, 4]]
        best = session.exec(select(StageRun.best_checkpoint_id)).one()
        assert session.get_one(Checkpoint, best).step == 4


def test_what_has_not_said_how_it_ended_is_silent_on_the_page_and_no_worker_takes_it(house, terminal):
    terminal.begin("vision").steps(1, 3)
    (found,) = terminal.imported(house)
    with house.writing.begin() as session:
        job = job_of(session, found.run_id, "vision")
        assert states.is_lost(job, db.now(session)) and job.heartbeat_at == datetime.fromtimestamp(terminal.t, UTC)
        assert jobs.claim(session, house.worker(session)) is None
        with pytest.raises(Conflict, match="started in a terminal"):
            jobs.request_stop(session, job, "ann")
        with pytest.raises(Conflict, match="started in a terminal"):
            jobs.request_save(session, job, "ann")


def test_with_over_it_has_failed_and_a_worker_can_go_on_with_it(house, terminal):
    terminal.begin("vision").steps(1, 6).save(5)
    (found,) = terminal.imported(house)
    (found,) = terminal.imported(house, over=True)
    assert found.came_to == "failed"
    with house.writing.begin() as session:
        job = job_of(session, found.run_id, "vision")
        assert job.reason == "no_outcome" and "last heard of at 2023-11-14" in job.detail
        runs.resume(session, session.get_one(Run, found.run_id), "ann")
        job, attempt = house.claim(session)
        assert Path(job.resume_from).name == "step=000005.ckpt" and (attempt.number, attempt.directory) == (2, f"{job.directory}/attempt-2")
        house.tell(session, job, attempt, StageEvent(name="vision", status="resumed", step=5))
    assert terminal.imported(house, over=True)[0].came_to == "running"
    terminal.begin("vision", step=5)
    with pytest.raises(Conflict, match="went on in the dashboard"):
        terminal.imported(house)


def test_a_training_begun_anew_under_an_imported_name_is_refused(house, terminal):
    terminal.begin("vision").steps(1, 3).end("stopped", step=3)
    terminal.imported(house)
    (terminal.directory("vision") / "events.jsonl").unlink()
    terminal.begin("vision").steps(1, 20)
    with pytest.raises(Conflict, match="was trained anew since it was imported as run 1"):
        terminal.imported(house)


def test_a_run_that_succeeded_without_its_best_file_says_so(house, terminal):
    sitting = terminal.begin("vision").steps(1, 2)
    best = sitting.save(2, "epoch", val_loss=0.1)
    (terminal.directory("vision") / best).unlink()
    sitting.end("succeeded", best=best)
    (found,) = terminal.imported(house)
    with house.reading() as session:
        job = job_of(session, found.run_id, "vision")
        assert (job.status, session.exec(select(StageRun.best_checkpoint_id)).one()) == ("succeeded", None)
        assert "there is no such checkpoint" in job.detail


def test_runs_of_several_names_in_one_directory_are_runs_of_their_own_with_their_own_logs(house, terminal):
    one = terminal.begin("vision").steps(1, 2)
    other = Terminal(terminal.root, "other")
    other.t = terminal.t - 101
    two = other.begin("vision").steps(1, 3)
    one.end("stopped")
    two.end("stopped")
    found = {each.name: each for each in terminal.imported(house)}
    assert found["vlm"].run_id != found["other"].run_id
    with house.reading() as session:
        for name, sitting in (("vlm", one), ("other", two)):
            assert log_of(session, job_of(session, found[name].run_id, "vision")) == sitting.log.read_text()


def test_a_log_that_might_be_another_run_s_is_not_taken_and_that_is_said(house, terminal):
    sitting = terminal.begin("vision").steps(1, 2)
    for path in (sitting.log, sitting.log.with_name(f"stage1_vision_{local(terminal.t - 30):%Y%m%d_%H%M%S}.log")):
        path.write_text("nothing says whose this is\n")
    (found,) = terminal.imported(house)
    assert found.remarks == [f"no log was found of the training that began at {datetime.fromtimestamp(LONG_AGO + 101, UTC):%Y-%m-%d %H:%M:%S} UTC"]


def test_its_paths_are_absolute_so_that_it_can_go_on_from_the_dashboard(house, terminal):
    terminal.begin("vision", image_root="pictures").steps(1, 2).end("stopped")
    (found,) = terminal.imported(house)
    with house.reading() as session:
        config = RunConfig.model_validate(session.get_one(Run, found.run_id).config)
    assert (config.csv_train, config.image_root) == ((str(terminal.root / "train.csv"),), str(terminal.root / "pictures"))
    assert (config.output_dir, config.log_dir) == (str(terminal.root / "runs"), "")


def test_what_is_no_training_is_refused_with_the_reason(house, terminal):
    (terminal.root / "runs").mkdir()
    with pytest.raises(Invalid, match=r"neither it nor a directory in it has an events\.jsonl"):
        terminal.imported(house)
    with pytest.raises(Invalid, match="there is no such directory"):
        terminal.imported(house, "nowhere")
    directory = terminal.directory("vision")
    directory.mkdir(parents=True)
    (directory / "events.jsonl").write_text("")
    with pytest.raises(Invalid, match=r"it has an events\.jsonl and no config\.json"):
        terminal.imported(house)
    (directory / "config.json").write_text('{"name": "vlm", "colour": "red"}')
    with pytest.raises(Invalid, match="says that a training began"):
        terminal.imported(house)
    EventWriter(directory / "events.jsonl").write(StageEvent(name="vision", status="started"))
    with pytest.raises(Invalid, match="colour: there is no such setting"):
        terminal.imported(house)
    (directory / "events.jsonl").write_bytes(b'{"type":"stage","t":1,"name":"evaluate","status":"started"}\n')
    with pytest.raises(Invalid, match="is of 'evaluate'"):
        terminal.imported(house)
    with house.reading() as session:
        assert session.exec(select(Run)).all() == []


def test_a_directory_outside_the_roots_is_refused_also_behind_a_link(house, tmp_path_factory):
    elsewhere = Terminal(tmp_path_factory.mktemp("elsewhere") / "work")
    elsewhere.begin("vision").steps(1, 2)
    with pytest.raises(Forbidden, match="outside the directories open to users"):
        elsewhere.imported(house)
    (house.root / "runs").symlink_to(elsewhere.root / "runs")
    with pytest.raises(Forbidden, match="outside the directories open to users"):
        Importer(house.writing, house.settings).bring_in(str(house.root / "runs"))


def test_two_imports_at_once_make_one_run_with_every_point_once(house, terminal):
    terminal.begin("vision").steps(1, 200).end("stopped")
    with ThreadPoolExecutor(3) as threads:
        statuses = [found[0].came_to for found in threads.map(lambda _: terminal.imported(house), range(3))]
    assert "stopped" in statuses
    with house.reading() as session:
        run = session.exec(select(Run)).one()
        assert points(session, run.id) == [(1, list(range(1, 201)))]
        assert runs.status(session, run) == "stopped"


def test_the_command_tells_what_came_of_it(house, terminal):
    terminal.begin("vision", log=False).steps(1, 2).end("stopped")
    environment = os.environ | {"PANOLLAVA_DATABASE_URL": house.settings.database_url, "PANOLLAVA_ROOTS": str(house.root)}
    command = [sys.executable, "-m", "app.cli", "import", str(terminal.root / "runs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Run 1 (vlm): stage vision stopped, ") and "no log was found" in done.stdout
    command[-1] = str(house.root / "nowhere")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (2, f"{house.root / 'nowhere'}: there is no such directory.")


def test_a_stage_that_is_imported_before_an_earlier_one_takes_its_place_behind_it(house, terminal):
    terminal.begin("resampler").steps(1, 2).end("stopped")
    terminal.imported(house)
    terminal.begin("vision").steps(1, 2).end("stopped")
    terminal.imported(house)
    with house.reading() as session:
        (run,) = session.exec(select(Run))
        assert [str(each.stage) for each in runs.state(session, run).stages] == ["vision", "resampler"] == run.config["stage"]


def test_an_import_that_was_killed_between_two_batches_goes_on_where_it_was(house, terminal, monkeypatch):
    sitting = terminal.begin("vision").steps(1, 30)
    sitting.end("stopped")
    monkeypatch.setattr(importing, "BATCH_BYTES", 500)
    batches = 0

    def dies(what: str, done: int, total: int) -> None:
        nonlocal batches
        batches += 1
        if batches == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        terminal.imported(house, heard=dies)
    (found,) = terminal.imported(house)
    with house.reading() as session:
        assert found.came_to == "stopped" and points(session, found.run_id) == [(1, list(range(1, 31)))]
        assert log_of(session, job_of(session, found.run_id, "vision")) == sitting.log.read_text()
