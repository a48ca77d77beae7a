"""docs/deploy.md, "Two GPU hosts", typed as it stands there: one PostgreSQL and one Redis behind TLS and passwords, one object store, and two hosts
that share no directory. The store is moto's S3 emulator on loopback; the trainer is a scripted one.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from app import artifacts, broker, doorbell, processes
from app.models import Checkpoint
from app.settings import Settings
from panollava import rundir
from tests import postgres
from tests.deploy import page
from tests.deploy.hosts import ADDRESS, Host, free_ports, missing
from tests.tables import write_table
from tests.worker.conftest import House
from tests.worker.hosts import row

ON_GPU1 = ("yours", "secrets", "PostgreSQL", "Redis", "settings")
SERVER, WORKER = "panollava-server.service", "panollava-worker@.service"

pytestmark = [pytest.mark.postgres, pytest.mark.redis]


@dataclass
class Pair:
    one: Host
    two: Host
    house: House = field(init=False)

    def __post_init__(self) -> None:
        told = self.one.settings()
        places = {name: told[f"PANOLLAVA_{name.upper()}"] for name in ("database_url", "broker_url", "artifacts")}
        data = Path(told["PANOLLAVA_ROOTS"])
        self.house = House(Settings(home=data, roots=[data], **places))

    def server(self, host: Host) -> None:
        """The app, until it answers."""
        port = processes.free_port()
        process = host.start(SERVER, PANOLLAVA_PORT=str(port))
        self._wait(host, SERVER, process, lambda: _answers(f"http://127.0.0.1:{port}/readyz"))

    def worker(self, host: Host) -> subprocess.Popen:
        """One with a scripted trainer, until it hears bells; it looks for nothing by itself."""
        process = host.start(WORKER, "cpu", "tests.worker.run_worker", HOST=host.name, SWEEP_SECONDS="3600")
        self._wait(host, WORKER, process, lambda: "ready." in host.log(WORKER))
        return process

    def _wait(self, host: Host, unit: str, process: subprocess.Popen, is_up: Callable[[], bool]) -> None:
        self.house.processes.append(process)
        deadline = time.monotonic() + 90
        while not is_up():
            assert time.monotonic() < deadline and process.poll() is None, host.log(unit)
            time.sleep(0.1)


@pytest.fixture(scope="module", autouse=True)
def _machines_own_programs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.environ["PANOLLAVA_TEST_PATH"])
        yield


@pytest.fixture(scope="module")
def yours(s3_store, tmp_path_factory) -> dict[str, str]:
    data = tmp_path_factory.mktemp("data")
    write_table(data, "train")
    told = {"ENDPOINT": "ENDPOINT_URL", "REGION": "DEFAULT_REGION", "KEY": "ACCESS_KEY_ID", "SECRET": "SECRET_ACCESS_KEY"}
    store = {f"S3_{name}": os.environ[f"AWS_{variable}"] for name, variable in told.items()}
    return {"ADDRESS": ADDRESS, "NETWORK": "127.0.0.0/8", "DATA": str(data), "S3": "s3://bucket/two-gpu-hosts"} | store


@pytest.fixture(scope="module")
def pair(yours) -> Iterator[Pair]:
    """gpu1 with its two servers, gpu2 with what gpu1 sent it; no service of ours yet."""
    if lacking := missing():
        pytest.skip(f"no {', '.join(lacking)}")
    programs, ports = postgres.programs(), free_ports()
    with tempfile.TemporaryDirectory(prefix="panollava-hosts-", ignore_cleanup_errors=True) as place:
        home = Path(place)
        home.chmod(0o755)  # PostgreSQL's user is another one
        one, two = (Host(name, home / name, ports, yours) for name in ("gpu1", "gpu2"))
        (home / "pg").mkdir()
        database = postgres.Postgres(home / "pg", programs, ("fsync=off", f"port={ports['5432']}"))
        database.url += f"&port={ports['5432']}"
        (home / "pg" / "data" / "pg_hba.conf").write_text("local all all trust\n")  # as a distribution's own: nobody comes from a network
        database.start()
        us = {"PGHOST": str(home / "pg"), "PGPORT": str(ports["5432"]), "PGUSER": "postgres"}
        done = one.type(*(f"on gpu1: {title}" for title in ON_GPU1), **us, PATH=f"{programs}:{os.environ['PATH']}")
        assert done.returncode == 0, done.stdout + done.stderr
        one.copy(two)
        if database.user:
            shutil.chown(one.root / "etc/postgresql/server.key", database.user)
        database.stop()
        database.start()
        log = home / "redis.log"
        with log.open("wb") as output, subprocess.Popen(["redis-server", one.root / "etc/redis/redis.conf"], stdout=output) as server:
            pair = Pair(one, two)
            pair.house.until(lambda: "Ready to accept connections" in log.read_text(), "Redis answers")
            yield pair
            pair.house.close()
            server.terminate()
        database.stop()


def test_what_one_host_trains_the_other_evaluates_and_each_says_that_all_is_well(pair):
    house = pair.house
    pair.server(pair.one)
    worker = pair.worker(pair.two)
    trained = house.submit("steady")
    doorbell.ring(1, house.settings.broker_url)
    house.wait(trained, "succeeded")
    house.until(lambda: is_well(pair.two), "its doctor finds nothing")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(int(page.service(WORKER)["TimeoutStopSec"])) == 0
    pair.worker(pair.one)
    best = row(house, Checkpoint, job_id=trained, kind="best")
    evaluated = house.evaluate(best.path)
    doorbell.ring(1, house.settings.broker_url)
    house.wait(evaluated, "succeeded")
    assert all(rundir.sha256(artifacts.local(best.path, _scratch(host))) == best.sha256 for host in (pair.one, pair.two))
    assert artifacts.exists(artifacts.join(house.attempts(evaluated)[0].directory, "metrics.json"))


def is_well(host: Host) -> bool:
    """What its doctor says of the parts that both hosts share; of its disks and devices it may think what it likes."""
    print(told := host.type("on both: look").stdout)
    levels = dict(re.findall(r"│ (\S[\w ]*?) +│ (ok|warn|fail) ", told))
    return {levels.get(part) for part in ("artifacts", "broker", "database", "migrations", "database writes", "workers")} == {"ok"}


def test_nobody_comes_in_without_tls_or_without_a_password(pair):
    database, bells = pair.house.settings.database_url, str(pair.house.settings.broker_url)
    password = database.split("@")[0].rpartition(":")[2]
    for url in (database.replace("sslmode=verify-full", "sslmode=disable"), database.replace(password, "wrong")):
        with pytest.raises(OperationalError, match=r"no encryption|password authentication failed"):
            create_engine(url).connect()
    with pytest.raises(redis.ConnectionError):
        broker.client(bells.replace("rediss://", "redis://").partition("?")[0]).ping()
    with pytest.raises(redis.AuthenticationError):
        broker.client(re.sub("//:.*@", "//", bells)).ping()


def test_a_shell_reads_the_settings_as_systemd_does_and_only_root_may_read_them(pair):
    for host in (pair.one, pair.two):
        file = host.root / "etc/panollava/panollava.env"
        told = subprocess.run(["bash", "-c", f"set -a; . {file}; exec env -0"], env={}, capture_output=True, text=True, check=True).stdout
        assert host.settings().items() <= dict(line.split("=", 1) for line in told.split("\0") if line).items()
    assert (pair.one.root / "etc/panollava/panollava.env").stat().st_mode & 0o777 == 0o600
    assert not (pair.two.root / "etc/panollava/server.key").exists()


def _answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=4).status == 200)
    except OSError:
        return False


def _scratch(host: Host) -> Path:
    return Path(host.settings()["PANOLLAVA_HOME"]) / "scratch"
