"""What all tests share: a quiet, offline environment, and the two machines' worth of data and models that are small enough to be real."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "disabled")


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


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A server to make databases on: the one PANOLLAVA_TEST_POSTGRES_URL names, else a private one from the programs installed here."""
    if url := os.environ.get("PANOLLAVA_TEST_POSTGRES_URL"):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="panollava-postgres-", ignore_cleanup_errors=True) as home, postgres.running(Path(home)) as server:
        yield server.url
