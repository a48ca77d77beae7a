"""The database is away for two minutes: long enough for every heartbeat to be called lost, and nothing is restarted for it."""

from datetime import datetime

import pytest
from sqlmodel import select

from app.jobs.states import PATIENCE
from app.models import Attempt, Worker

pytestmark = pytest.mark.postgres


@pytest.mark.timeout(400)
def test_a_database_that_was_away_for_120_seconds_restarts_nothing_and_the_worker_catches_up(outage):
    outage.done()
    house, job_id = outage.house, outage.job_id
    assert (outage.back_at - outage.gone_at).total_seconds() >= 120 > PATIENCE.total_seconds(), "every heartbeat was old enough to be called lost"
    assert outage.written > outage.stored + 300, "the trainer went on"
    until_the_witness_may_judge(house, outage.back_at)
    assert house.states(job_id) == ["queued", "starting", "running"]
    house.stop(job_id)
    house.wait(job_id, "stopped")
    assert house.states(job_id) == ["queued", "starting", "running", "stopping", "stopped"]
    with house.sessions.reading() as session:
        assert len(session.exec(select(Attempt)).all()) == 1
    house.assert_nothing_lost(job_id)


def until_the_witness_may_judge(house, back_at: datetime) -> None:
    """It has been in touch with the database for longer than it waits after an outage, and has swept since."""

    def seconds_since() -> float:
        with house.sessions.reading() as session:
            return (session.exec(select(Worker.heartbeat_at).where(Worker.name == "witness")).one() - back_at).total_seconds()

    house.until(lambda: seconds_since() > 45, "the witness has looked for 45 s", 120)
