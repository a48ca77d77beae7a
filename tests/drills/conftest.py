"""The drills: real worker processes, and one fault each. What is done about it, how long that takes, and that nothing was lost or doubled.

Drills that already were tests of something else stay where they are; docs/reliability.md has the table of all. The long one, a database that is
away for two minutes, begins before all others and is joined after them.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from app import broker
from tests import postgres
from tests.deployments import LAPTOP, postgres_databases
from tests.drills.outage import Outage
from tests.worker.conftest import built, databases, house, listening, redis_url

__all__ = ["databases", "house", "listening", "redis_url"]
WHOLE_WAY = ["queued", "starting", "running", "succeeded"]


@pytest.fixture(scope="session", params=[LAPTOP])
def deployment(request: pytest.FixtureRequest) -> str:
    """A drill that is about several hosts is marked `ON_SERVERS`."""
    return str(request.param)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever waits for the outage waits last."""
    items.sort(key=lambda item: "outage" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session", autouse=True)
def _begin_with_the_outage(request: pytest.FixtureRequest) -> None:
    if any("outage" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with suppress(Exception, pytest.skip.Exception):  # pytest raises it again for the drill that waits
            request.getfixturevalue("outage")


@pytest.fixture(scope="session")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    """It has begun, on a PostgreSQL of its own, and with bells that workers of other drills do not hear."""
    with ExitStack() as stack:
        bell = stack.enter_context(broker.embedded(tmp_path_factory.mktemp("bells")))
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="panollava-postgres-", ignore_cleanup_errors=True))
        server = stack.enter_context(postgres.running(Path(home)))
        databases = stack.enter_context(postgres_databases(server.url))
        house = stack.enter_context(built(tmp_path_factory.mktemp("outage"), databases))
        yield stack.enter_context(Outage(server, house, bell.url))
