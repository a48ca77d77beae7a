"""Which moves a job can make, who may make them, and what each leaves behind."""

import ast
from pathlib import Path

import pytest
from sqlmodel import select

from app.jobs import service as jobs
from app.jobs.states import MOVES, move
from app.models import ACTIVE, ENDED, Job, JobStatus, Transition

ROOT = Path(__file__).parents[2]


def test_every_state_has_a_way_out_and_success_only_into_the_queue(house):
    assert [status for status in JobStatus if not MOVES[status]] == []
    assert MOVES[JobStatus.succeeded] == {JobStatus.queued}
    assert set(JobStatus) == {*ACTIVE, *ENDED, JobStatus.queued, JobStatus.lost}


def test_a_move_is_recorded_with_time_actor_and_reason(house, session):
    job, _attempt = house.running(session)
    assert jobs.move(session, job.id, old=JobStatus.running, new=JobStatus.stopping, attempt=1, actor="ann", reason="stop_requested")
    last = session.exec(select(Transition).order_by(Transition.id.desc())).first()
    assert (last.job_id, last.attempt, last.old, last.new, last.actor, last.reason) == (job.id, 1, "running", "stopping", "ann", "stop_requested")
    assert last.at.tzinfo
    assert house.states(session, job) == ["queued", "starting", "running", "stopping"]


def test_a_move_is_told_to_the_streams(house, session):
    house.running(session)
    told = house.told(session, "job")
    assert [(each["status"], each["attempt"], each["stage"], each["reason"]) for each in told] == [
        ("queued", 0, "resampler", "submitted"), ("starting", 1, "resampler", "claimed"), ("running", 1, "resampler", "started"),
    ]  # fmt: skip


def test_only_the_first_of_two_who_saw_the_same_state_moves_the_job(house, session):
    job, _attempt = house.running(session)
    seen = {"old": JobStatus.running, "attempt": 1, "reason": "test"}
    assert move(session, job.id, new=JobStatus.stopping, actor="ann", **seen)
    assert not move(session, job.id, new=JobStatus.failed, actor="bob", **seen)
    assert job.status is JobStatus.stopping


def test_an_older_attempt_moves_nothing(house, session):
    job, _attempt = house.running(session)
    assert not move(session, job.id, old=JobStatus.running, new=JobStatus.failed, attempt=0, actor="zombie", reason="late")
    assert house.states(session, job)[-1] == "running"


def test_an_impossible_move_is_a_defect_of_the_caller(house, session):
    job, _attempt = house.running(session)
    with pytest.raises(ValueError, match="cannot go from running to queued"):
        move(session, job.id, old=JobStatus.running, new=JobStatus.queued, attempt=1, actor="ann", reason="test")


def test_a_move_that_is_rolled_back_has_not_happened(house):
    with house.writing() as session:
        job, _attempt = house.running(session)
        session.commit()
        jobs.request_stop(session, job, "ann")
        session.rollback()
        assert session.get_one(Job, job.id).status is JobStatus.running
        assert house.states(session, job)[-1] == "running"
        assert [each["status"] for each in house.told(session, "job")][-1] == "running"


def test_nothing_else_in_the_house_writes_a_status():
    """No `status=` in an update and no assignment to `.status`, outside of app/jobs/states.py."""
    files = [path for package in ("app", "worker") for path in (ROOT / package).rglob("*.py") if path.name != "states.py"]
    guilty = [f"{path}:{node.lineno}" for path in files for node in ast.walk(ast.parse(path.read_text())) if _writes_status(node)]
    assert guilty == []


def _writes_status(node):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("values", "sqlmodel_update"):
        return any(keyword.arg == "status" for keyword in node.keywords)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Job", "setattr"):
        return any(keyword.arg == "status" for keyword in node.keywords) or node.func.id == "setattr"
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []
    # `self.status` belongs to some other object: an exception, a reply.
    return any(isinstance(each, ast.Attribute) and each.attr == "status" and getattr(each.value, "id", "") != "self" for each in targets)
