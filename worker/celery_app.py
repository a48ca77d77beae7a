"""The Celery side of a worker: one queue, one task that looks for work, signals that let the job at hand be saved first.

Knows no jobs. What Celery could do and we do not want is switched off here: results, gossip, remote control, prefetching.
"""

import signal
import socket
from collections.abc import Callable
from threading import Event
from typing import Any

from celery import Celery, signals
from celery.apps.worker import Worker

from app import broker, doorbell


def build(url: str, take: Callable[[], None]) -> Celery:
    """The app whose one task calls `take`. It acknowledges first: a job that is lost is found by its heartbeat, not by a message."""
    app = doorbell.celery(url)
    app.conf.update(
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=broker.is_redis(url),  # while this worker trains, the next bell is for an idle one
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    app.task(take, name=doorbell.TASK, ignore_result=True)
    return app


class _Program(Worker):  # type: ignore[misc]
    """Celery's worker program, for which a closed terminal is a reason to leave and not to start anew."""

    def install_platform_tweaks(self, worker: Any) -> None:
        super().install_platform_tweaks(worker)
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))


def run(app: Celery, name: str, queue: str, leaving: Event) -> int:
    """Listen until SIGTERM, SIGINT or SIGHUP, waiting for a broker that is away. The signal sets `leaving`; returns when the task at hand has.

    The exit status of the process: 0 after a signal, Celery's own when it gave up by itself.
    """

    def leave(**_: Any) -> None:
        leaving.set()

    signals.worker_shutting_down.connect(leave)
    program = _Program(
        app=app, hostname=f"{name}@{socket.gethostname()}", queues=[queue], pool="threads", concurrency=1,
        without_gossip=True, without_mingle=True, without_heartbeat=True, quiet=True, loglevel="INFO",
    )  # fmt: skip
    program.start()
    return 0 if leaving.is_set() else program.exitcode or 1
