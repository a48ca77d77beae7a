"""Workers on hosts that share a database and an object store and not one directory. The store is moto's S3 emulator on loopback."""

import errno
import os
import shutil
import signal
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from app import artifacts, doorbell
from app.access import service as access
from app.access.scope import Scope
from app.checkpoints import exports
from app.jobs import service as jobs
from app.main import create_app
from app.models import Checkpoint, Evaluation, Export, Job, Run, StageRun
from panollava import rundir
from panollava.config import RunConfig
from tests.worker.hosts import Played, assert_stored, names, notes, row, shorten
from tests.worker.test_stop_job import working
from worker import exchange, links, uploads

pytestmark = pytest.mark.store

WHOLE_WAY = ["queued", "starting", "running", "succeeded"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(exchange, "ROUND_SECONDS", 0.1)
    monkeypatch.setattr(exchange, "LONGEST_WAIT", 0.5)


def beside(house, job_id: int) -> set[str]:
    """Files of the newest attempt in the store, its checkpoints left out."""
    directory = house.attempts(job_id)[-1].directory
    return names(directory) - names(artifacts.join(directory, "checkpoints"))


def age(house, job_id: int) -> None:
    """Nobody has been heard of for an hour."""
    with house.sessions.writing.begin() as session:
        session.get_one(Job, job_id).heartbeat_at -= timedelta(hours=1)


@pytest.mark.redis
def test_a_chain_goes_on_on_another_host_when_the_first_is_gone_with_its_disk(house, one, two, redis_url):
    first = one.worker(redis_url)
    house.until_ready("one")
    job_id = house.submit("slow", stages="resampler,finetune", steps=40)
    doorbell.ring(1, redis_url)
    house.wait(job_id, "running")
    with house.sessions.writing.begin() as session:  # from here on only the other host can take what is queued
        run = session.exec(select(Run)).one()
        run.config = run.config | {"devices": 2}
        session.add(run)
    house.wait(job_id, "succeeded", 60)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0, house.story()
    assert_stored(house, job_id)
    assert beside(house, job_id) == {"events.jsonl", "output.log", "job.json"}
    shutil.rmtree(one.home)

    two.worker(redis_url, "0,1")
    second = house.until(lambda: [job for job in house.jobs() if job.id != job_id], "the next stage is queued")[0]
    house.wait(second.id, "succeeded", 60)
    best = row(house, Checkpoint, job_id=job_id, kind="epoch")
    assert row(house, StageRun, stage="finetune").init_checkpoint == best.path
    given = RunConfig.model_validate_json((two.holds(house.attempts(second.id)[0].directory) / "job.json").read_bytes())
    assert given.init_from == str(two.holds(best.path)) and rundir.sha256(Path(given.init_from)) == best.sha256
    assert given.cache_dir == str(two.scratch / "_cache")
    assert_stored(house, second.id)
    assert house.states(second.id) == WHOLE_WAY

    evaluated = house.evaluate(row(house, Checkpoint, job_id=second.id, kind="best").path, devices=2)
    house.wait(evaluated, "succeeded", 60)
    assert beside(house, evaluated) == {"events.jsonl", "output.log", "job.json", "metrics.json", "predictions.jsonl"}
    assert_shown_without_the_workers_disks(house, second.run_id)


def assert_shown_without_the_workers_disks(house, run_id: int) -> None:
    """What the server has no file of it brings from the store."""
    shutil.rmtree(house.settings.home / "hosts")
    with house.sessions.writing.begin() as session:
        token = access.create(session, "test", Scope.launch)[1]
    evaluation = row(house, Evaluation)
    pages = [f"/runs/{run_id}", "/checkpoints", f"/checkpoints/{evaluation.checkpoint_id}", f"/evals/{evaluation.id}"]
    with TestClient(create_app(house.settings), base_url="http://localhost", headers={"Authorization": f"Bearer {token}"}) as client:
        answers = client.get(f"/api/v1/evaluations/{evaluation.id}/predictions").json()["items"]
        assert [answer["prediction"] for answer in answers] == ["this"]
        assert [client.get(page).status_code for page in pages] == [200] * len(pages)
        page = client.get(pages[2]).text
        assert "damaged" not in page and "not in the store" not in page and "no such" not in page


@pytest.mark.redis
def test_a_job_whose_host_is_gone_goes_on_elsewhere_from_the_last_checkpoint_that_is_stored(house, one, two, redis_url):
    first = one.worker(redis_url)
    house.until_ready("one")
    job_id = house.submit("slow", steps=2000)
    doorbell.ring(1, redis_url)
    house.until(lambda: [each for each in house.checkpoints(job_id) if each.stored_at], "a checkpoint is in the store")
    first.kill()
    first.wait()
    os.killpg(house.trainers()[0].pid, signal.SIGKILL)
    shutil.rmtree(one.home)
    age(house, job_id)

    work = two.work()
    work.recovery.contact = timedelta(0)
    work.recovery.others()
    assert house.job(job_id).status == "queued"
    good = max(each.step for each in house.checkpoints(job_id) if each.stored_at)
    resumed = row(house, Checkpoint, path=house.job(job_id).resume_from)
    assert resumed.step == good and resumed.stored_at
    with house.sessions.writing.begin() as session:
        shorten(session, good + 10)
    work.take()
    assert house.states(job_id) == [*WHOLE_WAY[:3], "lost", *WHOLE_WAY]
    assert house.attempts(job_id)[1].resumed_step == good
    before = [step for step, _t, _value in house.stored_points(job_id)]
    after = [step for step, _t, _value in house.stored_points(job_id, 2)]
    assert before == list(range(1, len(before) + 1)) and len(before) >= good
    assert after == list(range(good + 1, good + 11))


def test_a_trainer_that_outlives_its_worker_is_adopted_on_its_host_with_all_that_it_has_written(house, one, dead_worker):
    job_id = dead_worker("slow", steps=100_000, scratch=one.scratch)
    house.until(lambda: list(one.holds(house.attempts(job_id)[0].directory).glob("checkpoints/*.ckpt")), "a checkpoint is on the host")
    with working(house, one.work()):
        house.until(lambda: [each for each in house.checkpoints(job_id) if each.stored_at], "it is adopted and a checkpoint is in the store")
        house.stop(job_id)
    assert (house.job(job_id).status, house.reasons(job_id).count("adopted"), len(house.attempts(job_id))) == ("stopped", 1, 1)
    steps = [step for step, _t, _value in house.stored_points(job_id)]
    assert steps == list(range(1, len(steps) + 1)) and house.checkpoints(job_id)[-1].step == len(steps)
    directory = house.attempts(job_id)[0].directory
    assert artifacts.read(artifacts.join(directory, "output.log")) == house.stored_log(job_id)
    assert_stored(house, job_id)
    assert beside(house, job_id) == {"events.jsonl", "output.log", "job.json"}


def test_a_worker_with_another_scratch_directory_does_not_adopt_what_it_cannot_see(house, one, two, dead_worker):
    dead_worker("slow", scratch=one.scratch)
    assert two.work().adoption.take() is None
    assert one.work().adoption.take() is not None


def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(house, one, s3_store):
    job_id = house.submit("slow", steps=60)
    at_work = threading.Thread(target=one.work().take)
    at_work.start()
    house.until(lambda: [each for each in house.checkpoints(job_id) if each.stored_at], "a checkpoint is in the store")
    s3_store.stop()
    try:
        house.until(lambda: [text for text in notes(house) if "Waiting for the store" in text], "people are told", 40)
        house.until(lambda: not house.trainers()[0].alive, "the trainer has ended")
        beat = house.job(job_id).heartbeat_at
        house.until(lambda: house.job(job_id).heartbeat_at > beat, "the worker is heard of")
        assert house.job(job_id).status == "running", "it has not succeeded before its checkpoints are safe"
    finally:
        s3_store.start()
    house.wait(job_id, "succeeded", 60)
    at_work.join(20)
    assert_stored(house, job_id)
    assert "Store and disk answer again." in notes(house)
    assert len(house.stored_points(job_id)) == 60


def test_a_disk_that_is_full_for_a_moment_is_waited_for_and_nothing_is_lost(house, one, monkeypatch):
    real, failed = rundir.link_whole, set()

    def full_once(source: Path, target: Path) -> None:
        """When the first checkpoint is heard of, and when the first of the second names is uploaded."""
        place = source.name in (rundir.BEST, rundir.LAST)
        if links.HELD in target.parts and place not in failed:
            failed.add(place)
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(rundir, "link_whole", full_once)
    job_id = house.submit("slow", steps=40)
    one.work().take()
    assert (len(failed), house.job(job_id).status) == (2, "succeeded")
    assert_stored(house, job_id)
    assert [text for text in notes(house) if "No space left on device" in text]
    assert "Store and disk answer again." in notes(house)


def test_a_defect_that_ends_the_uploads_ends_the_job_and_not_only_when_its_training_is_over(house, one, monkeypatch):
    def defect(self: uploads.Uploads) -> list[str]:
        raise RuntimeError("a defect")

    monkeypatch.setattr(uploads.Uploads, "round", defect)
    job_id = house.submit("slow", steps=10_000)
    with pytest.raises(RuntimeError, match="a defect"):
        one.work().take()
    job = house.job(job_id)
    assert (job.status, job.reason, job.detail) == ("failed", "infrastructure", "RuntimeError('a defect')")
    assert len(house.stored_points(job_id)) < 10_000


def test_a_stop_does_not_wait_for_a_store_that_is_away_and_the_rest_is_uploaded_later(house, one, s3_store, monkeypatch):
    monkeypatch.setattr(exchange, "LAST_SECONDS", 0)
    job_id = house.submit("slow", steps=10_000)
    at_work = threading.Thread(target=one.work().take)
    at_work.start()
    house.until(lambda: [each for each in house.checkpoints(job_id) if each.stored_at], "a checkpoint is in the store")
    s3_store.stop()
    try:
        house.until(lambda: [each for each in house.checkpoints(job_id) if not each.stored_at], "a checkpoint waits")
        house.stop(job_id)
        job = house.wait(job_id, "stopped", 60)
        at_work.join(20)
    finally:
        s3_store.start()
    assert job.reason == "not_stored" and str(one.scratch) in job.detail
    last = max(each.step for each in house.checkpoints(job_id))
    uploads.left_behind(house.sessions, one.scratch)
    assert_stored(house, job_id)
    house.do(jobs.retry, job_id, "a person")
    assert row(house, Checkpoint, path=house.job(job_id).resume_from).step == last


def test_a_job_that_waits_for_the_store_to_begin_can_be_stopped(house, one, two, s3_store):
    job_id = house.submit("steady", stages="resampler,finetune")
    worker = one.work()
    worker._do(worker._claim())
    second = house.until(lambda: [job for job in house.jobs() if job.id != job_id], "the next stage is queued")[0].id
    s3_store.stop()
    try:
        at_work = threading.Thread(target=two.work().take)
        at_work.start()
        house.until(lambda: [text for text in notes(house) if "Waiting for the store" in text], "people are told", 40)
        assert house.job(second).status == "starting"
        house.stop(second)
        assert house.wait(second, "stopped", 40).reason == "not_stored"
        at_work.join(20)
    finally:
        s3_store.start()
    assert house.attempts(second)[0].pid is None


@pytest.fixture
def stopped(one):
    """A job that was stopped on host one after some checkpoints."""
    played = Played(one)
    (played.claimed.directory / "data.json").write_text('{"splits": {}}')
    for step in (5, 10, 15):
        played.save(f"step={step:06d}.ckpt", "step", step)
        played.save("last.ckpt", "last", step)
    played.stop()
    return played.job_id


def test_a_checkpoint_that_the_store_has_lost_gives_way_to_the_one_before_it(house, two, stopped):
    house.do(jobs.retry, stopped, "a person")
    lost = row(house, Checkpoint, path=house.job(stopped).resume_from)
    for each in house.checkpoints(stopped):
        if each.sha256 == lost.sha256:  # under both of its names
            artifacts._store().pipe_file(each.path, b"weight5", Metadata={"sha256": lost.sha256})
    two.work().take()
    assert house.job(stopped).status == "succeeded"
    assert house.attempts(stopped)[1].resumed_step < lost.step
    assert [text for text in notes(house) if lost.path in text and "Continuing from s3://" in text]
    assert house.states(stopped).count("starting") == 2


def test_a_host_that_goes_on_with_a_checkpoint_is_told_what_it_has_learned_from(house, two, stopped):
    house.do(jobs.retry, stopped, "a person")
    two.work().take()
    assert house.job(stopped).status == "succeeded"
    assert (two.holds(house.attempts(stopped)[0].directory) / "data.json").read_text() == '{"splits": {}}'


def test_a_job_that_lost_every_checkpoint_begins_at_the_start(house, two, stopped):
    house.do(jobs.retry, stopped, "a person")
    for each in house.checkpoints(stopped):
        artifacts.delete(each.path)
    two.work().take()
    assert house.job(stopped).status == "succeeded"
    assert house.attempts(stopped)[1].resumed_step == 0
    assert [text for text in notes(house) if "Continuing from the start" in text]


def test_the_host_that_has_the_checkpoint_downloads_nothing(house, one, stopped):
    house.do(jobs.retry, stopped, "a person")
    one.work().take()
    assert house.job(stopped).status == "succeeded"
    assert not [text for text in notes(house) if "Downloading" in text]


def test_an_evaluation_whose_checkpoint_is_gone_fails_and_names_it(house, one, two):
    job_id = house.submit("steady")
    one.work().take()
    best = row(house, Checkpoint, job_id=job_id, kind="best")
    evaluated = house.evaluate(best.path)
    artifacts.delete(best.path)
    two.work().take()
    job = house.job(evaluated)
    assert (job.status, job.reason) == ("failed", "missing_file")
    assert best.path in job.detail


@pytest.fixture
def export(house, one):
    """Of a checkpoint that host one has trained, asked for by a person."""
    house.submit("steady")
    one.work().take()
    with house.sessions.writing.begin() as session:
        return exports.export(session, row(house, Checkpoint, kind="best"), "a person")


def exported(house) -> Export:
    return row(house, Export)


def test_an_export_is_made_on_another_host_and_every_file_of_it_is_in_the_store(house, two, export):
    two.work().take()
    job, made = row(house, Job, export_id=export.id), exported(house)
    assert (job.status, made.directory) == ("succeeded", artifacts.join(house.attempts(job.id)[0].directory, "model"))
    assert made.directory.startswith(f"{row(house, Run).directory}/exports/resampler-20")
    here = two.holds(made.directory)
    files = [path for path in here.rglob("*") if path.is_file()]
    assert names(made.directory) == {path.name for path in files} == {"config.json", "tokenizer.json", "model.safetensors", "card.txt"}
    for path in files:
        name = artifacts.join(made.directory, path.relative_to(here).as_posix())
        assert artifacts.holds(name, rundir.sha256(path), path.stat().st_size), name
    assert two.holds(made.path).exists()


def test_people_see_where_an_export_lies_that_it_is_gone_and_that_a_store_does_not_say(house, two, export, s3_store):
    two.work().take()
    made = exported(house)
    with house.sessions.writing.begin() as session:
        token = access.create(session, "test", Scope.launch)[1]
    page = f"/checkpoints/{made.checkpoint_id}"
    with TestClient(create_app(house.settings), base_url="http://localhost", headers={"Authorization": f"Bearer {token}"}) as client:

        def told() -> tuple[str, bool | None]:
            answer = client.get(f"/api/v1{page}/export").json()
            return answer["directory"], answer["is_gone"]

        assert told() == (made.directory, False)
        assert made.directory in client.get(page).text
        s3_store.stop()
        try:
            assert told() == (made.directory, None)
            assert made.directory in client.get(page).text
        finally:
            s3_store.start()
        artifacts.delete(artifacts.join(made.directory, "config.json"))
        assert told() == (made.directory, True)
        assert "Export again" in client.get(page).text


def test_an_export_whose_upload_was_cut_off_sends_only_the_files_that_are_missing(house, two, export, monkeypatch):
    store, sent = artifacts._store(), []
    put = store.put_file

    def torn(path: str, name: str, **more: object) -> None:
        sent.append(name.rpartition("/")[2])
        if sent.count("tokenizer.json") == 1 and sent[-1] == "tokenizer.json":
            raise OSError("connection reset")
        put(path, name, **more)

    monkeypatch.setattr(store, "put_file", torn)
    two.work().take()
    assert row(house, Job, export_id=export.id).status == "succeeded"
    assert (sent.count("model.safetensors"), sent.count("tokenizer.json")) == (1, 2)


def test_an_export_whose_checkpoint_the_store_has_lost_fails_and_names_it(house, two, export):
    artifacts.delete(export.path)
    two.work().take()
    job = row(house, Job, export_id=export.id)
    assert (job.status, job.reason, exported(house).directory) == ("failed", "missing_file", None)
    assert export.path in job.detail
