"""What an attempt leaves, on its way to the object store: which checkpoints count, which go, and what follows at the end."""

import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import combinations_with_replacement

import pytest
from sqlmodel import select

from app import artifacts
from app.checkpoints import exports, retention, stored, view
from app.errors import Conflict
from app.evaluations import service as evaluations
from app.jobs import service as jobs
from app.models import Attempt, Checkpoint, Evaluation, Job, Run, Worker
from app.runs import copies
from panollava import rundir
from panollava.events import EVENTS_FILE, CheckpointRemoved, CheckpointSaved
from tests.worker.conftest import NOBODY
from tests.worker.hosts import Played, row
from worker import hold, links, orphans, process, scratch, uploads
from worker.follow import Fenced, Follower, hear

pytestmark = pytest.mark.store


@pytest.fixture
def attempt(one):
    return Played(one)


def age(house, job_id: int) -> datetime:
    """Nobody has been heard of for an hour; since when."""
    with house.sessions.writing.begin() as session:
        job = session.get_one(Job, job_id)
        job.heartbeat_at -= timedelta(hours=1)
        return job.heartbeat_at


def test_a_removed_checkpoint_stays_until_the_store_has_a_later_one(attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    attempt.uploads.round()
    attempt.save("step=000010.ckpt", "step", 10)
    attempt.remove("step=000005.ckpt")
    assert attempt.last_good() == 5, "the later one is not in the store yet"
    attempt.uploads.round()
    assert attempt.stored() == {"step=000010.ckpt": 10}
    assert attempt.objects() == {"step=000010.ckpt", "step=000010.ckpt.json"}


def test_a_checkpoint_removed_before_its_upload_is_forgotten(attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    attempt.remove("step=000005.ckpt")
    assert attempt.uploads.round() == []
    assert attempt.objects() == set()


def test_a_name_that_is_written_anew_counts_again_when_the_new_file_is_stored(attempt):
    for step in (5, 10):
        attempt.save("last.ckpt", "last", step)
        assert "last.ckpt" not in attempt.stored()
        attempt.uploads.round()
        assert attempt.stored() == {"last.ckpt": step}
    (last,) = attempt.house.checkpoints(attempt.job_id)
    assert artifacts.holds(last.path, last.sha256)


def test_a_file_that_was_damaged_on_the_way_is_told_and_not_stored(attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    (attempt.claimed.directory / "checkpoints" / "step=000005.ckpt").write_bytes(b"weights of somebody else")
    (problem,) = attempt.uploads.rest()
    assert "step=000005.ckpt is not in the store" in problem and "damaged" in problem
    assert attempt.stored() == {}
    assert not (attempt.claimed.directory / scratch.STORED).exists()


def test_an_attempt_that_was_followed_by_another_marks_nothing(attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    with attempt.house.sessions.writing.begin() as session:
        session.get_one(Job, attempt.job_id).attempt = 2
    attempt.uploads.round()
    assert attempt.stored() == {}


def test_an_attempt_that_was_followed_by_another_removes_nothing(attempt):
    for step in (5, 10):
        attempt.save(f"step={step:06d}.ckpt", "step", step)
        attempt.uploads.round()
    attempt.remove("step=000005.ckpt")
    before = attempt.stored(), attempt.objects()
    with attempt.house.sessions.writing.begin() as session:
        session.get_one(Job, attempt.job_id).attempt = 2
    attempt.uploads.round()
    assert (attempt.stored(), attempt.objects()) == before
    assert before[0] == {"step=000005.ckpt": 5, "step=000010.ckpt": 10}


def pin(attempt, step: int, pinned: bool = True) -> None:
    with attempt.house.sessions.writing.begin() as session:
        for each in session.exec(select(Checkpoint).where(Checkpoint.step == step)).all():
            retention.pin(session, each, pinned)


def fork(attempt, step: int) -> None:
    with attempt.house.sessions.writing.begin() as session:
        (start,) = session.exec(select(Checkpoint).where(Checkpoint.step == step)).all()
        copies.fork(session, session.exec(select(Run)).one(), {}, attempt.house.settings, "ann", checkpoint_id=start.id)


def evaluate(attempt, step: int) -> None:
    (wanted,) = [each for each in attempt.house.checkpoints(attempt.job_id) if each.step == step]
    attempt.house.evaluate(wanted.path)


def export(attempt, step: int) -> None:
    with attempt.house.sessions.writing.begin() as session:
        exports.export(session, session.exec(select(Checkpoint).where(Checkpoint.step == step)).one(), "ann")


@pytest.mark.parametrize("want", [pin, fork, evaluate, export])
def test_a_removed_checkpoint_that_somebody_wants_stays_in_the_store(attempt, want):
    for step in (5, 10):
        attempt.save(f"step={step:06d}.ckpt", "step", step)
        attempt.uploads.round()
    want(attempt, 5)
    attempt.save("step=000015.ckpt", "step", 15)
    attempt.remove("step=000005.ckpt")
    attempt.remove("step=000010.ckpt")
    attempt.uploads.round()
    assert attempt.stored() == {"step=000005.ckpt": 5, "step=000015.ckpt": 15}
    assert attempt.objects() == {f"step=0000{step}.ckpt{note}" for step in ("05", "15") for note in ("", ".json")}


def test_one_that_is_pinned_no_more_leaves_the_store_as_any_other(attempt):
    for step in (5, 10):
        attempt.save(f"step={step:06d}.ckpt", "step", step)
        attempt.uploads.round()
    pin(attempt, 5)
    attempt.remove("step=000005.ckpt")
    attempt.uploads.round()
    assert "step=000005.ckpt" in attempt.stored()
    pin(attempt, 5, pinned=False)
    attempt.uploads.round()
    assert attempt.stored() == {"step=000010.ckpt": 10}


def test_one_that_was_pinned_while_it_was_being_removed_stays(attempt):
    for step in (5, 10):
        attempt.save(f"step={step:06d}.ckpt", "step", step)
        attempt.uploads.round()
    attempt.remove("step=000005.ckpt")
    (going,) = [each for each in attempt.house.checkpoints(attempt.job_id) if each.step == 5]
    pin(attempt, 5)
    attempt.uploads._remove(going)
    assert "step=000005.ckpt" in attempt.stored() and "step=000005.ckpt" in attempt.objects()


def test_one_that_is_on_its_way_out_of_the_store_can_be_wanted_no_more(attempt):
    for step in (5, 10):
        attempt.save(f"step={step:06d}.ckpt", "step", step)
        attempt.uploads.round()
    attempt.remove("step=000005.ckpt")
    (going,) = [each for each in attempt.house.checkpoints(attempt.job_id) if each.step == 5]
    with attempt.house.sessions.writing.begin() as session:
        assert stored.release(session, going)
    with pytest.raises(Conflict, match="makes room"):
        pin(attempt, 5)


def test_no_order_of_pin_upload_and_three_newer_checkpoints_loses_what_was_pinned(attempt, monkeypatch):
    """The worker first hears of it, and it is pinned, after so many of its trainer's deeds. Until all are done the store is away."""
    kept = set()
    for number, (heard, pinned) in enumerate(combinations_with_replacement(range(1, 7), 2)):
        name, step = f"step={number * 100:06d}.ckpt", number * 100
        for at, deed in enumerate(trainers_deeds(attempt, name, step), start=1):
            deed()
            if at >= heard:
                attempt.take_in()
            if at == pinned and pinned_or_refused(attempt, step):
                kept.add(name)
            with monkeypatch.context() as patch, suppress(artifacts.Away):
                patch.setattr(artifacts, "upload", away)
                attempt.uploads.round()
        refused = heard >= 5 or pinned == 6  # its file was gone before it had a row, or its row was gone before it was pinned
        assert (name in kept) != refused, (heard, pinned)
    assert attempt.uploads.round() == []
    rows = {row.path.rpartition("/")[2]: row for row in attempt.house.checkpoints(attempt.job_id)}
    assert len(kept) == 14 and all(artifacts.holds(rows[name].path, rows[name].sha256) for name in kept)


def trainers_deeds(attempt, name: str, step: int):
    """Saves one and three newer ones, removes it, then says so."""
    newer = [partial(attempt.fake.save, f"step={step + more:06d}.ckpt", "step", step + more, {}) for more in (1, 2, 3)]
    remove = (attempt.claimed.directory / "checkpoints" / name).unlink
    return [
        partial(attempt.fake.save, name, "step", step, {}),
        *newer,
        remove,
        partial(attempt.fake.say, CheckpointRemoved(path=f"checkpoints/{name}")),
    ]


def pinned_or_refused(attempt, step: int) -> bool:
    """Whether it was pinned. One that is there no more has no row to pin, or one that says so."""
    with attempt.house.sessions.writing.begin() as session:
        found = session.exec(select(Checkpoint).where(Checkpoint.step == step)).first()
        try:
            if found:
                retention.pin(session, found, True)
        except Conflict:
            return False
    return found is not None


def away(*_: object) -> None:
    raise artifacts.Away("the store does not answer")


def test_one_that_is_pinned_and_removed_while_it_is_being_uploaded_stays(attempt, monkeypatch):
    attempt.save("step=000005.ckpt", "step", 5)
    upload = artifacts.upload

    def slowly(path, name, *more) -> None:
        if name.endswith(".ckpt"):
            pin(attempt, 5)
            attempt.remove("step=000005.ckpt")
        upload(path, name, *more)

    monkeypatch.setattr(artifacts, "upload", slowly)
    assert attempt.uploads.round() == []
    assert attempt.stored() == {"step=000005.ckpt": 5}


def test_a_worker_that_dies_before_it_has_told_of_a_checkpoint_leaves_its_bytes_to_the_next(attempt):
    attempt.fake.save("step=000005.ckpt", "step", 5, {})
    hear(attempt.house.sessions, attempt.claimed)
    (attempt.claimed.directory / "checkpoints" / "step=000005.ckpt").unlink()
    attempt.take_in()
    pin(attempt, 5)
    attempt.uploads.round()
    assert attempt.stored() == {"step=000005.ckpt": 5}


def test_the_bytes_of_a_removed_checkpoint_that_nobody_wants_go_at_once(attempt):
    follower = Follower(attempt.house.sessions, attempt.claimed, NOBODY)
    attempt.fake.save("step=000005.ckpt", "step", 5, {})
    attempt.fake.save("step=000010.ckpt", "step", 10, {})
    assert follower.round()
    held = attempt.claimed.directory / links.HELD
    assert len(list(held.iterdir())) == 4
    rundir.make_room(attempt.claimed.directory / "checkpoints" / "step=000005.ckpt")
    attempt.fake.say(CheckpointRemoved(path="checkpoints/step=000005.ckpt"))
    assert follower.round()
    assert [path.name.partition("-")[2] for path in sorted(held.iterdir())] == ["step=000010.ckpt", "step=000010.ckpt.json"]


def test_events_that_name_no_file_hold_nothing_up(attempt):
    for path in ("checkpoints", "no/such/step=000001.ckpt", f"{'long' * 100}.ckpt"):
        attempt.fake.say(CheckpointSaved(path=path, kind="step", step=1, epoch=0.1, sha256="0" * 64, size=1))
    with (attempt.claimed.directory / EVENTS_FILE).open("ab") as file:
        file.write(b'{"type": "checkpoint", "path": 1}\n"removed"\n')
    attempt.take_in()
    assert attempt.uploads.round() == []
    assert not list((attempt.claimed.directory / links.HELD).glob("*"))


def test_a_worker_that_comes_after_one_that_died_uploads_what_that_had_not(house, one, attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    with house.sessions.writing.begin() as session:
        session.exec(select(Worker).where(Worker.name == "one")).one().pid_started = 1.0
    house.work("another", scratch=one.scratch).recovery.others()
    job = house.job(attempt.job_id)
    assert (job.status, attempt.stored()) == ("queued", {"step=000005.ckpt": 5})
    assert job.resume_from == house.checkpoints(job.id)[0].path


def test_a_host_that_was_started_anew_uploads_what_it_had_not_and_goes_on_from_it(house, one, attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    house.bury("one", boot_id="before the restart")
    age(house, attempt.job_id)
    work = house.work("another", scratch=one.scratch)
    work.recovery.contact = timedelta(0)
    work.recovery.others()
    job = house.job(attempt.job_id)
    assert (job.status, job.resume_from) == ("queued", house.checkpoints(job.id)[0].path)


def test_a_job_whose_last_checkpoint_cannot_be_stored_is_recovered_when_the_store_is_back(house, one, attempt, s3_store):
    attempt.save("step=000005.ckpt", "step", 5)
    house.bury("one")
    work = house.work("another", scratch=one.scratch)
    s3_store.stop()
    try:
        work.recovery.others()
        assert house.job(attempt.job_id).status == "starting"
    finally:
        s3_store.start()
    work.recovery.others()
    job = house.job(attempt.job_id)
    assert (job.status, job.resume_from) == ("queued", house.checkpoints(job.id)[0].path)


def test_two_that_recover_a_job_on_one_host_do_not_take_its_files_from_each_other(house, one, attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    house.bury("one")
    work = house.work("another", scratch=one.scratch)
    with scratch.taken(attempt.claimed) as first:
        work.recovery.others()
        assert (first, house.job(attempt.job_id).status, attempt.stored()) == (True, "starting", {})
    work.recovery.others()
    assert (house.job(attempt.job_id).status, attempt.stored()) == ("queued", {"step=000005.ckpt": 5})


def test_a_job_whose_rest_is_on_its_way_is_heard_of_and_taken_over_by_nobody(house, one, two, attempt, monkeypatch):
    attempt.save("step=000005.ckpt", "step", 5)
    house.bury("one")
    silent = age(house, attempt.job_id)
    sends, arrives, upload = threading.Event(), threading.Event(), artifacts.upload

    def slow(path, name, sha256=None, tell=None) -> None:
        if name.endswith(".ckpt"):
            while not arrives.is_set():
                tell(1)
                sends.set()
                time.sleep(0.01)
        upload(path, name, sha256)

    monkeypatch.setattr(artifacts, "upload", slow)
    monkeypatch.setattr(hold, "HEARTBEAT_SECONDS", 0.05)
    elsewhere = two.work().recovery
    elsewhere.contact = timedelta(0)
    recovering = threading.Thread(target=house.work("another", scratch=one.scratch).recovery.others)
    with monkeypatch.context() as patch:
        patch.setattr(process, "boot_id", lambda: "elsewhere")
        assert [each.claimed.job_id for each in elsewhere._lost()] == [attempt.job_id], "silent as it is, it would be taken over"
    recovering.start()
    try:
        assert sends.wait(60)
        house.until(lambda: house.job(attempt.job_id).heartbeat_at > silent, "the job is heard of")
        with monkeypatch.context() as patch:
            patch.setattr(process, "boot_id", lambda: "elsewhere")
            elsewhere.others()
        assert house.states(attempt.job_id) == ["queued", "starting"]
    finally:
        arrives.set()
        recovering.join(60)
    job = house.job(attempt.job_id)
    assert (job.status, job.attempt, job.resume_from) == ("queued", 1, house.checkpoints(job.id)[0].path)


def test_only_bytes_that_move_are_told_of_and_whoever_was_fenced_off_sends_no_more(house, one, attempt):
    house.bury("one")
    age(house, attempt.job_id)
    member = house.work("another", scratch=one.scratch).member
    with house.sessions.reading() as session:
        (lost,) = orphans.watched(session, member)
    held = hold.Hold(house.sessions, member, lost)
    held.beat()
    assert house.job(attempt.job_id).heartbeat_at == lost.heard_at, "a store that hangs is no work"
    for _ in range(2):
        held.tell(1)
        held.beat()
    assert house.job(attempt.job_id).heartbeat_at > lost.heard_at
    with house.sessions.writing.begin() as session:
        assert held.check(session) == 1
        jobs.heartbeat(session, attempt.job_id, 1)  # the worker that had it was only frozen
    held.tell(1)
    with pytest.raises(Fenced):
        held.beat()


def test_a_page_says_that_a_checkpoint_is_still_on_its_way(house, attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    (saved,) = house.checkpoints(attempt.job_id)
    with house.sessions.reading() as session:
        assert "not in the store yet" in (view.facts(session, [saved.id])[0].gone or "")
    attempt.uploads.round()
    with house.sessions.reading() as session:
        shown = view.facts(session, [saved.id])[0]
    assert shown.gone is None and shown.note and shown.note.step == 5


def test_what_a_checkpoint_has_learned_from_is_in_the_store_as_soon_as_it(attempt):
    (attempt.claimed.directory / "data.json").write_text("{}")
    attempt.uploads.round()
    assert attempt.objects() == set()
    attempt.save("step=000005.ckpt", "step", 5)
    attempt.uploads.round()
    assert attempt.objects() == {"data.json", "step=000005.ckpt", "step=000005.ckpt.json"}


def test_who_goes_on_elsewhere_is_given_the_best_so_far_too(attempt):
    attempt.save("epoch=00-val_loss=0.100.ckpt", "epoch", 5)
    attempt.save("best.ckpt", "best", 5)
    attempt.save("step=000010.ckpt", "step", 10)
    attempt.save("last.ckpt", "last", 10)
    attempt.uploads.round()
    path = artifacts.join(attempt.claimed.name, "checkpoints", "last.ckpt")
    with attempt.house.sessions.reading() as session:
        needed = [each.path.rpartition("/")[2] for each in stored.to_resume(session, path)]
    assert needed[0] == "last.ckpt"
    assert set(needed) == {"last.ckpt", "step=000010.ckpt", "best.ckpt", "epoch=00-val_loss=0.100.ckpt"}


def test_the_other_files_follow_at_the_end_without_what_was_only_for_the_worker(attempt):
    attempt.save("step=000005.ckpt", "step", 5)
    for name in ("output.log", "stop", "lease", "half.part", "model.part/weights", "predictions.jsonl.part", "tensorboard/events.1"):
        path = attempt.claimed.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    assert attempt.uploads.rest() == []
    kept = {"events.jsonl", "output.log", "predictions.jsonl.part", "events.1", "step=000005.ckpt", "step=000005.ckpt.json"}
    assert attempt.objects() == kept
    assert (attempt.claimed.directory / scratch.STORED).exists()


def test_only_what_the_store_has_is_forgotten_on_this_host(attempt, one):
    attempt.save("step=000005.ckpt", "step", 5)
    scratch.trim(one.scratch, kept_seconds=-1)
    assert attempt.claimed.directory.exists()
    scratch.use(attempt.claimed.directory / "checkpoints" / "step=000005.ckpt")
    scratch.trim(one.scratch, kept_seconds=-1)
    assert attempt.claimed.directory.exists(), "an evaluation of it on this host changes nothing"
    attempt.uploads.rest()
    scratch.trim(one.scratch)
    assert attempt.claimed.directory.exists()
    scratch.trim(one.scratch, kept_seconds=-1)
    assert not attempt.claimed.directory.exists()


def test_an_evaluation_goes_on_from_answers_that_another_host_gave(house, one, two, attempt):
    attempt.save("best.ckpt", "best", 5)
    attempt.stop()
    evaluated = house.evaluate(artifacts.join(attempt.claimed.name, "checkpoints", "best.ckpt"))
    first = one.work()._claim()
    assert first.job_id == evaluated
    scratch.begin(first)
    for name in ("predictions.jsonl.part", "evaluation.json"):
        (first.directory / name).write_text("{}\n")
    uploads.Uploads(house.sessions, first, one.scratch).rest()
    with house.sessions.writing.begin() as session:
        jobs.lose(session, session.get_one(Job, evaluated), "test")
    work = two.work()
    work.take()
    assert house.job(evaluated).status == "succeeded"
    assert (two.holds(first.name) / "predictions.jsonl.part").exists() and (two.holds(first.name) / "evaluation.json").exists()


def test_metrics_of_an_evaluation_are_read_where_its_trainer_wrote_them(house, one):
    house.submit("steady")
    one.work().take()
    evaluated = house.evaluate(row(house, Checkpoint, kind="best").path)
    one.work().take()
    evaluation = row(house, Evaluation)
    assert evaluation.metrics == {"bleu_4": 1.0} and evaluation.directory == row(house, Attempt, job_id=evaluated).directory
    assert evaluations.predictions(evaluation, None, 10, scratch=house.settings.scratch)[0][0].prediction == "this"
