"""A backup that is made while a worker writes holds rows and files that agree, wherever it is restored."""

import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path

from app.housekeeping.backup import backup
from app.housekeeping.restore import restore
from app.settings import Settings
from tests import postgres
from tests.worker.conftest import House


def test_rows_and_files_of_a_backup_agree_although_a_trainer_wrote_all_the_time(house, tmp_path):
    job_id = house.submit("slow", steps=100_000)
    work = house.work()
    thread = threading.Thread(target=work.take)
    thread.start()
    try:
        house.until(lambda: len(house.checkpoints(job_id)) > 2, "some checkpoints are there")
        stored = len(house.stored_points(job_id))
        backup(house.settings, tmp_path / "one.tar.gz")
        house.until(lambda: len(house.stored_points(job_id)) > stored, "it has gone on meanwhile")
    finally:
        work.leaving.set()
        thread.join()
    with nowhere(house, tmp_path / "elsewhere") as settings:
        done = restore(settings, tmp_path / "one.tar.gz")
        other = House(settings)
        assert_agree(other, job_id)
        assert len(other.stored_points(job_id)) >= stored
        assert done.open_jobs == 1 and done.missing == len(other.checkpoints(job_id)) > 0
        other.close()


@contextmanager
def nowhere(house, home: Path):
    """A home with nothing in it, on a database of the same kind without a table."""
    url = house.engine.url
    server = url.set(database="postgres").render_as_string(hide_password=False)
    empty = nullcontext(f"sqlite:///{home / 'panollava.db'}") if url.get_backend_name() == "sqlite" else postgres.database(server)
    with empty as database_url:
        yield Settings(home=home, roots=[home.parent], database_url=database_url)


def assert_agree(house, job_id: int) -> None:
    """What the rows say was read is in the files, and the other way round."""
    (attempt,) = house.attempts(job_id)
    assert Path(attempt.directory).is_relative_to(house.settings.artifacts)
    points, log = house.stored_points(job_id), house.stored_log(job_id)
    assert repr(points) == repr(house.written_points(job_id)[: len(points)])
    assert log and house.written_log(job_id).startswith(log)
    assert (attempt.event_offset, attempt.log_offset) <= (Path(attempt.directory, "events.jsonl").stat().st_size, len(house.written_log(job_id)))
    assert house.job(job_id).status == "running"
