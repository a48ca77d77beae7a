"""A backup that is made while a worker writes holds rows and files that agree, wherever it is restored."""

import threading
from pathlib import Path

from app.housekeeping.backup import backup
from app.housekeeping.restore import restore
from app.settings import Settings
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
    settings = Settings(home=tmp_path / "elsewhere", roots=[tmp_path])
    done = restore(settings, tmp_path / "one.tar.gz")
    other = House(settings)
    (attempt,) = other.attempts(job_id)
    assert Path(attempt.directory).is_relative_to(settings.artifacts)
    points, log = other.stored_points(job_id), other.stored_log(job_id)
    assert len(points) >= stored and repr(points) == repr(other.written_points(job_id)[: len(points)])
    assert log and other.written_log(job_id).startswith(log)
    assert (attempt.event_offset, attempt.log_offset) <= (Path(attempt.directory, "events.jsonl").stat().st_size, len(other.written_log(job_id)))
    assert other.job(job_id).status == "running" and done.open_jobs == 1 and done.missing == len(other.checkpoints(job_id)) > 0
    other.engine.dispose()
