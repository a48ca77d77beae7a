"""A backup becomes a house again, elsewhere, whole or not at all."""

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from sqlmodel import select

from app import db, discards
from app.checkpoints import exports
from app.checkpoints import service as checkpoints
from app.errors import Conflict, Invalid
from app.housekeeping import backup as backups
from app.housekeeping.backup import backup
from app.housekeeping.restore import _check_kind, restore
from app.jobs.finish import finish
from app.models import Attempt, Checkpoint, Export, Job, JobStatus, Run, StageRun
from app.settings import Settings
from panollava import rundir
from panollava.data.fingerprint import Fingerprint, changed, write_fingerprints
from panollava.events import Metric
from panollava.metrics.report import GROWING_FILE, SETTINGS_FILE


@pytest.fixture
def lived(house, session):
    """A house with a run that has succeeded: events, a checkpoint under two names, an export; and the next one, queued."""
    job, attempt = house.running(session)
    directory = Path(attempt.directory)
    (directory / "events.jsonl").write_text("one line\n")
    (directory / "job.json").write_text("{}")
    (directory / "secret.bin").write_bytes(b"large")
    house.tell(session, job, attempt, Metric(step=1, epoch=0.1, values={"train_loss": 1.0}), house.saved(attempt, 5, "epoch", name="best.ckpt"))
    rundir.link_whole(directory / "checkpoints" / "best.ckpt", directory / "checkpoints" / "last.ckpt")
    finish(session, job.id, attempt.number, JobStatus.succeeded, actor="test", reason="succeeded", best="checkpoints/best.ckpt")
    exports.export(session, session.exec(select(Checkpoint)).one(), "ann")
    house.create(session, init_from=str(directory / "checkpoints" / "best.ckpt"))
    session.commit()
    return house


def elsewhere(house, url: str | None = None) -> Settings:
    home = house.root / "new" / "house"
    return Settings(home=home, roots=[house.root], database_url=url or f"sqlite:///{home / 'panollava.db'}")


@pytest.fixture
def new(lived, kind, empty_url):
    return elsewhere(lived, None if kind == "sqlite" else empty_url)


def test_it_is_restored_elsewhere_with_rows_that_point_there(lived, new):
    backup(lived.settings, lived.root / "b.tar.gz", with_checkpoints=True)
    done = restore(new, lived.root / "b.tar.gz")
    engine = db.engine(new.database_url)
    with db.session_factory(engine)() as session:
        run = session.get_one(Run, 1)
        attempt = session.exec(select(Attempt)).one()
        assert run.directory == str(new.artifacts / "run-1") and attempt.directory.startswith(run.directory)
        assert run.config["output_dir"] == run.directory and run.config["cache_dir"] == str(new.artifacts / "cache")
        assert Path(attempt.directory, "events.jsonl").read_text() == "one line\n"
        checkpoint = session.exec(select(Checkpoint)).one()
        assert checkpoints.is_whole(Path(checkpoint.path)) and Path(checkpoint.path).is_relative_to(new.artifacts)
        assert session.exec(select(StageRun.init_checkpoint).where(StageRun.run_id == 2)).one() == checkpoint.path
        assert session.exec(select(Export.path)).one() == checkpoint.path
        assert {job.status for job in session.exec(select(Job))} == {"succeeded", "queued"}
        names = [Path(attempt.directory, "checkpoints", name) for name in ("best.ckpt", "last.ckpt")]
        assert names[0].stat().st_ino == names[1].stat().st_ino
        assert (attempt.pid, attempt.boot_id) == (None, "restored")  # whatever lives of the old house is not this one's to kill
    engine.dispose()
    assert (done.missing, done.open_jobs) == (0, 2)
    assert list(new.artifacts.rglob("secret.bin")) == [] and [path.name for path in new.home.iterdir() if "restore" in path.name] == []


def test_what_a_resume_compares_and_an_evaluation_goes_on_with_is_restored(lived, session, new):
    trained = Path(session.exec(select(Attempt.directory)).one())
    read = Fingerprint(sha256="as it was", tables={}, rows=1, images=1)
    write_fingerprints(trained, {"train": read})
    answered = Path(lived.settings.artifacts, "evaluations", "eval-1", "attempt-1")
    answered.mkdir(parents=True)
    for name in (GROWING_FILE, SETTINGS_FILE):
        (answered / name).write_text("{}\n")
    backup(lived.settings, lived.root / "b.tar.gz")
    restore(new, lived.root / "b.tar.gz")
    again = new.artifacts / trained.relative_to(lived.settings.artifacts)
    assert changed(again, {"train": read}) == []
    assert changed(again, {"train": read.model_copy(update={"sha256": "other"})}) == ["train"]
    assert {path.name for path in (new.artifacts / "evaluations" / "eval-1" / "attempt-1").iterdir()} == {GROWING_FILE, SETTINGS_FILE}


def test_numbers_that_were_given_once_do_not_come_again_after_a_restore(lived, session, new):
    number = lived.create(session).id
    session.delete(session.get_one(Run, number))
    session.commit()
    backup(lived.settings, lived.root / "b.tar.gz")
    restore(new, lived.root / "b.tar.gz")
    engine = db.engine(new.database_url)
    with db.session_factory(engine).begin() as other:
        run = Run(name="x", config={}, request_hash="", created_at=db.now(other), created_by="ann")
        other.add(run)
        other.flush()
        assert run.id == number + 1
    engine.dispose()


def test_what_was_to_leave_a_store_is_left_there_for_its_names_may_be_somebody_else_s_by_now(lived, session, new):
    discards.add(session, "s3://bucket/run-5", 5, is_directory=True)
    session.commit()
    backup(lived.settings, lived.root / "b.tar.gz")
    restore(new, lived.root / "b.tar.gz")
    with db.transaction(new.database_url) as restored:
        assert discards.waiting(restored).count == 0
    assert discards.waiting(session).count == 1


def test_without_checkpoints_it_says_how_many_are_missing(lived, new):
    manifest = backup(lived.settings, lived.root / "b.tar.gz")
    assert not any(name.endswith(".ckpt") for name in manifest.files) and any(name.endswith(".ckpt.json") for name in manifest.files)
    assert restore(new, lived.root / "b.tar.gz").missing == 1


def test_nothing_that_is_there_is_written_over(lived, new):
    backup(lived.settings, lived.root / "b.tar.gz")
    with pytest.raises(Conflict, match="is not empty"):
        restore(lived.settings, lived.root / "b.tar.gz")
    with pytest.raises(Conflict, match="has tables already"):
        restore(lived.settings.model_copy(update={"artifacts": new.artifacts}), lived.root / "b.tar.gz")
    restore(new, lived.root / "b.tar.gz")
    with pytest.raises(Conflict):
        restore(new, lived.root / "b.tar.gz")


ON_SQLITE = pytest.mark.parametrize("kind", ["sqlite"])
"""What is found before the database is looked at."""


@pytest.fixture
def packed(lived):
    backup(lived.settings, lived.root / "b.tar.gz")
    return lived.root / "b.tar.gz"


@ON_SQLITE
def test_a_damaged_or_cut_backup_is_refused_and_leaves_nothing_behind(lived, packed):
    new, whole = elsewhere(lived), packed.read_bytes()
    plain = bytearray(gzip.decompress(whole))
    at = plain.index(b"one line")
    for damaged in (whole[: len(whole) // 2], b"no archive", gzip.compress(bytes(plain[:at] + b"ONE" + plain[at + 3 :]))):
        packed.write_bytes(damaged)
        with pytest.raises(Invalid, match=r"cannot be read as a backup|is damaged: artifacts/.*events\.jsonl"):
            restore(new, packed)
        assert not new.home.exists() or list(new.home.iterdir()) == []


@ON_SQLITE
@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "artifacts/../../outside", "elsewhere/outside"])
def test_an_archive_that_reaches_outside_is_refused(lived, name):
    with tarfile.open(lived.root / "b.tar.gz", "w:gz") as tar:
        told = tarfile.TarInfo(name)
        told.size = 1
        tar.addfile(told, io.BytesIO(b"x"))
    with pytest.raises(Invalid, match="No backup of ours"):
        restore(elsewhere(lived), lived.root / "b.tar.gz")
    assert list(lived.root.rglob("outside")) == []


@ON_SQLITE
def test_a_link_to_a_file_outside_is_refused(lived, packed):
    with tarfile.open(packed, "w:gz") as tar:
        told = tarfile.TarInfo("artifacts/link")
        told.type, told.linkname = tarfile.LNKTYPE, "../../panollava.db"
        tar.addfile(told)
    with pytest.raises(Invalid, match="No backup of ours"):
        restore(elsewhere(lived), packed)


@ON_SQLITE
def test_a_backup_that_fails_leaves_the_one_before(lived, packed, monkeypatch):
    before = packed.read_bytes()

    def full(url: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backups, "copy_database", full)
    with pytest.raises(OSError, match="No space left"):
        backup(lived.settings, packed)
    assert packed.read_bytes() == before and packed.stat().st_mode & 0o077 == 0


@ON_SQLITE
def test_a_database_of_another_kind_is_refused(lived, packed):
    new = elsewhere(lived, "postgresql+psycopg://nobody@127.0.0.1:1/none")
    manifest = backup(lived.settings, packed)
    with pytest.raises(Invalid, match="The backup is of sqlite, and PANOLLAVA_DATABASE_URL names postgresql"):
        _check_kind(manifest, new)


@pytest.mark.postgres
def test_without_pg_dump_it_says_what_to_install(postgres_url, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Invalid, match="pg_dump is not on PATH"):
        backup(Settings(home=tmp_path, database_url=postgres_url, roots=[tmp_path]), tmp_path / "b.tar.gz")


@ON_SQLITE
def test_the_commands_say_what_they_did(lived, packed):
    old = {"PANOLLAVA_HOME": str(lived.settings.home), "PANOLLAVA_DATABASE_URL": lived.settings.database_url}
    done = command(old, "backup", str(packed))
    assert done.returncode == 0 and "files, " in done.stdout and "Checkpoints are not in it" in done.stdout
    done = command({"PANOLLAVA_HOME": str(lived.root / "new")}, "restore", str(packed))
    assert done.returncode == 0 and "1 checkpoints have no file here" in done.stdout and "2 jobs waited or were at work" in done.stdout
    assert command(old, "restore", str(packed)).returncode == 2


def command(environment: dict[str, str], *arguments: str):
    return subprocess.run([sys.executable, "-m", "app.cli", *arguments], env=os.environ | environment, capture_output=True, text=True, check=False)
