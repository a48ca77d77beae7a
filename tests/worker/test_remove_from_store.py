"""What a run gives up goes out of the object store: by a rule, by a button, with the run. A store that hangs or is away holds nobody up."""

import signal
import threading

import pytest
from sqlmodel import select

from app import artifacts, discards
from app.checkpoints import exports, retention
from app.checkpoints.retention import Rule
from app.formats import size
from app.jobs.finish import finish
from app.models import Checkpoint, Discard, Evaluation, Export, JobStatus, Run
from app.runs import copies
from tests.worker.hosts import Host, Played, row
from worker import uploads

pytestmark = pytest.mark.store

SAVED = {"step=000005.ckpt": 5, "step=000010.ckpt": 10, "step=000015.ckpt": 15, "epoch=00.ckpt": 12, "best.ckpt": 12, "last.ckpt": 15}


def play(host: Host, status: JobStatus | None = JobStatus.failed) -> Played:
    """A stage that has saved SAVED, all of it in the store."""
    played = Played(host)
    for name, step in SAVED.items():
        played.save(name, name.partition("=")[0].partition(".")[0], step)
    assert played.uploads.rest() == []
    if status:
        end(played, status)
    return played


def end(played: Played, status: JobStatus) -> None:
    with played.house.sessions.writing.begin() as session:
        assert finish(session, played.job_id, 1, status, actor="test", reason=str(status), best="checkpoints/best.ckpt")


@pytest.fixture
def played(one):
    return play(one)


def sizes(directory: str) -> dict[str, int]:
    """Of every object below, by its whole name."""
    return {f"s3://{name}": each["size"] for name, each in artifacts._store().find(directory, detail=True).items()}


def kept(played: Played) -> set[str]:
    """Checkpoints that the store has, each with its note."""
    found = {name.rpartition("/")[2] for name in sizes(artifacts.join(played.claimed.name, "checkpoints"))}
    checkpoints = {name for name in found if name.endswith(".ckpt")}
    assert found == checkpoints | {f"{name}.json" for name in checkpoints}
    return checkpoints


def rows(played: Played) -> set[str]:
    return {each.path.rpartition("/")[2] for each in played.house.checkpoints(played.job_id)}


def given_up(house) -> list[Discard]:
    with house.sessions.reading() as session:
        return list(session.exec(select(Discard)))


def sweep(house) -> None:
    discards.sweep(house.sessions.reading, house.sessions.writing)


def checkpoint(played: Played, name: str) -> Checkpoint:
    return row(played.house, Checkpoint, path=artifacts.join(played.claimed.name, "checkpoints", name))


# A rule


def test_the_preview_says_which_objects_go_and_their_bytes_and_the_button_removes_just_those(client, played):
    everything = sizes(played.claimed.name)
    told = client.get("/api/v1/runs/1/retention?steps=0").json()
    going = [path for each in told["go"] for path in each["paths"]]
    assert {path.rpartition("/")[2] for path in going} == {"step=000005.ckpt", "step=000010.ckpt"}
    assert told["bytes_freed"] == sum(everything[path] for path in going) > 0 and told["bytes_leaving"] == 0
    assert sizes(played.claimed.name) == everything, "a preview removes nothing"

    done = client.post("/api/v1/runs/1/retention", json={"steps": 0}).json()
    assert (done["removed"], done["bytes_freed"]) == (True, told["bytes_freed"])
    assert everything.keys() - sizes(played.claimed.name).keys() == {name for path in going for name in (path, f"{path}.json")}
    assert kept(played) == rows(played) == {"step=000015.ckpt", "last.ckpt", "epoch=00.ckpt", "best.ckpt"}
    assert given_up(played.house) == []


def test_what_is_pinned_and_what_another_run_started_from_stays_until_nobody_needs_it(house, client, played):
    pinned, parent = checkpoint(played, "step=000005.ckpt"), checkpoint(played, "step=000010.ckpt")
    with house.sessions.writing.begin() as session:
        retention.pin(session, pinned, True)
        copies.fork(session, session.get_one(Run, 1), {}, house.settings, "ann", checkpoint_id=parent.id)
    assert client.post("/api/v1/runs/1/retention", json={"steps": 0}).json()["go"] == []
    assert client.delete(f"/api/v1/checkpoints/{parent.id}").status_code == 409
    assert kept(played) == rows(played) == SAVED.keys()
    with house.sessions.writing.begin() as session:
        retention.pin(session, session.get_one(Checkpoint, pinned.id), False)
    client.post("/api/v1/runs/1/retention", json={"steps": 0})
    assert kept(played) == rows(played) == SAVED.keys() - {"step=000005.ckpt"}


def test_one_checkpoint_is_removed_under_all_its_names(house, client, one):
    played = play(one, status=None)
    played.save("best.ckpt", "best", 15)  # it has moved on, and last.ckpt is of the same bytes
    played.save("last.ckpt", "last", 20)
    played.save("step=000020.ckpt", "step", 20)
    assert played.uploads.rest() == []
    end(played, JobStatus.failed)
    old = checkpoint(played, "epoch=00.ckpt")
    assert client.delete(f"/api/v1/checkpoints/{old.id}").json() == {"bytes_freed": old.size}
    assert kept(played) == rows(played) == SAVED.keys() - {"epoch=00.ckpt"} | {"step=000020.ckpt"}


# The run


def test_a_deleted_run_takes_its_exports_and_predictions_out_of_the_store_and_leaves_others_there(house, client, one):
    house.submit("steady")
    work = one.work()
    work.take()
    best = row(house, Checkpoint, kind="best")
    house.evaluate(best.path)
    with house.sessions.writing.begin() as session:
        exports.export(session, session.get_one(Checkpoint, best.id), "ann")
    work.take()
    run, evaluation, export = row(house, Run), row(house, Evaluation), row(house, Export)
    mine = sizes(run.directory) | sizes(evaluation.directory.rpartition("/")[0])
    assert {"predictions.jsonl", "model.safetensors", "best.ckpt", "events.jsonl"} <= {name.rpartition("/")[2] for name in mine}
    assert artifacts.is_below(export.directory, run.directory)
    neighbour = f"{run.directory}0/checkpoints/best.ckpt"  # run-10, whose name begins as run-1's
    artifacts._store().pipe_file(neighbour, b"weights")

    assert client.delete("/api/v1/runs/1").status_code == 204
    assert sizes(str(house.settings.artifacts)).keys() == {neighbour}
    assert house.jobs() == [] and given_up(house) == []


def test_a_run_that_is_deleted_while_its_host_uploads_what_it_had_left_leaves_nothing_in_the_store(house, client, one, monkeypatch):
    played = Played(one)
    played.save("step=000005.ckpt", "step", 5)
    end(played, JobStatus.failed)
    upload = artifacts.upload

    def late(path, name, *args, **more) -> None:
        if name.endswith("events.jsonl"):
            assert client.delete("/api/v1/runs/1").status_code == 204
        upload(path, name, *args, **more)

    monkeypatch.setattr(artifacts, "upload", late)
    uploads.left_behind(house.sessions, one.scratch)
    assert house.jobs() == [] and {name.rpartition("/")[2] for name in sizes(played.claimed.name)} >= {"events.jsonl"}
    sweep(house)
    assert sizes(str(house.settings.artifacts)) == {}


# A store that is away


def test_with_the_store_away_rows_go_at_once_people_are_told_and_the_objects_go_when_it_answers(house, client, played, s3_store):
    first = checkpoint(played, "step=000005.ckpt")
    s3_store.stop()
    try:
        done = client.post("/api/v1/runs/1/retention", json={"steps": 0, "checkpoint_ids": [first.id]}).json()
        assert (done["removed"], done["bytes_freed"], done["bytes_leaving"]) == (True, first.size, first.size)
        told = client.get("/api/v1/runs/1/retention?steps=0").json()
        assert told["bytes_leaving"] == first.size and "the store does not answer" in told["leaving_because"]
        page = client.get("/runs/1?tab=checkpoints").text
        assert "1 file given up before" in page and "the store does not answer" in page
        assert client.post("/api/v1/runs/1/retention", json={"steps": 0}).json()["removed"], "pressed again"
    finally:
        s3_store.start()
    assert rows(played) == SAVED.keys() - {"step=000005.ckpt", "step=000010.ckpt"} and kept(played) == SAVED.keys()
    sweep(house)
    assert kept(played) == rows(played)
    assert client.get("/api/v1/runs/1/retention?steps=0").json()["bytes_leaving"] == 0


def test_the_page_that_asks_says_when_the_store_is_away_and_a_run_that_was_deleted_then_is_gone_from_it_when_it_answers(
    house, client, played, s3_store
):
    assert size(sum(sizes(played.claimed.name).values())) in client.get("/runs/1/delete").text
    s3_store.stop()
    try:
        asked = client.get("/runs/1/delete")
        assert asked.status_code == 200 and "the object store does not answer" in asked.text and "Delete for good" in asked.text
        assert client.delete("/api/v1/runs/1").status_code == 204
        assert client.delete("/api/v1/runs/1").status_code == 404
    finally:
        s3_store.start()
    assert sizes(played.claimed.name) and given_up(house)[0].problem
    sweep(house)
    assert sizes(str(house.settings.artifacts)) == {} and given_up(house) == []


def test_what_the_store_refuses_to_remove_keeps_nothing_else_there(house, client, played, monkeypatch):
    for name in ("step=000005.ckpt", "step=000010.ckpt"):
        with house.sessions.writing.begin() as session:
            retention.delete(session, session.get_one(Checkpoint, checkpoint(played, name).id))
    remove = artifacts.delete_checkpoint

    def refused(name: str) -> None:
        if name.endswith("step=000005.ckpt"):
            raise artifacts.Away("AccessDenied")
        remove(name)

    monkeypatch.setattr(artifacts, "delete_checkpoint", refused)
    sweep(house)
    sweep(house)
    assert kept(played) == SAVED.keys() - {"step=000010.ckpt"}
    assert [(each.name.rpartition("/")[2], each.problem) for each in given_up(house)] == [("step=000005.ckpt", "AccessDenied")]


# A kill


@pytest.mark.redis
def test_whoever_is_killed_between_row_and_object_is_finished_by_a_worker(house, played, redis_url):
    with house.sessions.writing.begin() as session:
        retention.apply(session, session.get_one(Run, 1), Rule(steps=0))
    assert kept(played) == SAVED.keys(), "the server was killed here"
    worker = Host(house, "two").worker(redis_url)
    house.until(lambda: not given_up(house), "the worker has swept")
    assert kept(played) == rows(played) == SAVED.keys() - {"step=000005.ckpt", "step=000010.ckpt"}
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0, house.story()


def test_a_sweep_that_is_killed_half_way_is_finished_by_the_next_and_two_at_once_do_no_harm(house, played, monkeypatch):
    with house.sessions.writing.begin() as session:
        retention.apply(session, session.get_one(Run, 1), Rule(steps=0))
    remove = artifacts.delete

    def dies(name: str) -> None:
        remove(name)
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "delete", dies)
    with pytest.raises(KeyboardInterrupt):
        sweep(house)
    monkeypatch.undo()
    assert len(given_up(house)) == 2
    both = [threading.Thread(target=sweep, args=[house]) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert given_up(house) == [] and kept(played) == rows(played)


# After a stage


def test_a_stage_with_an_automatic_rule_ends_without_asking_a_store_that_hangs_and_nobody_waits_for_the_one_who_sweeps(house, one, monkeypatch):
    played = play(one, status=None)
    with house.sessions.writing.begin() as session:
        retention.keep(session, session.get_one(Run, 1), Rule(steps=0, automatic=True))
    asked, answers, remove = threading.Event(), threading.Event(), artifacts.delete_checkpoint

    def hangs(name: str) -> None:
        asked.set()
        assert answers.wait(60)
        remove(name)

    monkeypatch.setattr(artifacts, "delete_checkpoint", hangs)
    end(played, JobStatus.succeeded)
    assert house.job(played.job_id).status == "succeeded" and not asked.is_set()
    assert rows(played) == {"epoch=00.ckpt", "best.ckpt", "step=000015.ckpt", "last.ckpt"} and kept(played) == SAVED.keys()

    sweeping = threading.Thread(target=sweep, args=[house])
    sweeping.start()
    try:
        assert asked.wait(60)
        with house.sessions.writing.begin() as session:  # on SQLite it would be refused after 5 s while somebody held a transaction
            retention.keep(session, session.get_one(Run, 1), Rule(steps=7))
        assert kept(played) == SAVED.keys()
    finally:
        answers.set()
        sweeping.join(60)
    assert kept(played) == rows(played)
