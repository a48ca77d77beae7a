"""Tell sleeping workers that there may be work, and open pages that there may be news.

Only a hint: workers sweep and streams poll, so a bell that nobody hears costs seconds and loses nothing. Whoever rings
has committed first.
"""

import logging
from functools import lru_cache
from tempfile import TemporaryFile

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from app import broker

TASK = "panollava.ring"
SWEEP_SECONDS = 10.0
"""How often workers look for work without being rung for: how long a job waits at most when its bell was lost."""
CHANNEL = "panollava:events"
"""Redis pub/sub channel; a message on it carries nothing but the fact that events were committed."""

log = logging.getLogger(__name__)


def queue(devices: int) -> str:
    """The queue of the workers that own so many devices."""
    return f"x{devices}"


def ring(devices: int, url: str | None) -> bool:
    """Wake a worker with so many devices; False without a broker, or if it was away, which is logged and harmless."""
    if url is None:
        return False
    try:
        _sender(url).send_task(TASK, queue=queue(devices), retry=False, ignore_result=True)
    except (OperationalError, RedisError, OSError) as error:
        log.warning("Nobody heard the doorbell of %s; a worker finds the job at its next sweep. %r", queue(devices), error)
        return False
    return True


def trouble(url: str) -> str | None:
    """What is wrong with the broker, in its own words; None while bells can be left there. It takes some seconds at most to say so."""
    try:
        if broker.is_redis(url):
            _client(url).ping()
        elif url.startswith("filesystem://"):
            TemporaryFile(dir=broker.folder(url)).close()
        else:
            with celery(url).connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=5)
    except (OperationalError, RedisError, OSError) as error:
        return str(error)
    return None


def announce(url: str | None) -> bool:
    """Wake the streams that wait for new events; False if the broker was away or is no Redis. Called too often to be logged."""
    if url is None or not broker.is_redis(url):
        return False
    try:
        _client(url).publish(CHANNEL, b"")
    except (RedisError, OSError) as error:
        log.debug("Streams were not woken and find the news when they poll. %r", error)
        return False
    return True


def celery(url: str) -> Celery:
    """A Celery that speaks JSON only and keeps no results; the worker adds the task to one like it."""
    app = Celery("panollava", set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        result_accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        **broker.celery_settings(url),
    )
    return app


@lru_cache
def _sender(url: str) -> Celery:
    app = celery(url)
    # A page must not wait for a broker that is away: one try, no more.
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "max_retries": 0, "socket_connect_timeout": 1, "socket_timeout": 5}
    return app


@lru_cache
def _client(url: str) -> Redis:
    return broker.client(url)
