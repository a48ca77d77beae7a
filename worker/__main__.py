"""`python -m worker`: join the roster, go on with what workers that died left behind, then take jobs at doorbells and sweeps until told to leave."""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from threading import Event, Thread

from app import artifacts, broker, db, discards, doorbell
from app.artifacts import Away
from app.devices import all_devices
from app.doorbell import SWEEP_SECONDS
from app.events import service as events
from app.settings import get_settings
from app.telemetry import json_logs
from worker import celery_app, roster, scratch, uploads
from worker.follow import AWAY, HEARTBEAT_SECONDS, Sessions, patiently
from worker.roster import Taken
from worker.work import TRAINER, Work

GLANCE_SECONDS = 10.0
"""How old what pages show of a GPU is at most. In a thread of its own: a driver that hangs must not make the worker look dead."""
PRUNE_SECONDS = 600.0
"""How often events that no stream will be asked for any more are forgotten."""

log = logging.getLogger("worker")


def main(trainer: Sequence[str] = TRAINER) -> None:
    options = _options()
    settings = get_settings()
    json_logs.set_up(settings.log_format)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # until Celery has handlers of its own
    db.migrate(settings.database_url)
    engine = db.engine(settings.database_url)
    sessions = Sessions(db.session_factory(engine, read_only=True), db.session_factory(engine))
    try:
        member = roster.join(sessions.writing, options.name, options.devices, scratch=settings.scratch)
    except Taken as error:
        raise SystemExit(str(error)) from None
    # A trainer needs no database and no store, so it is not told the way, nor the passwords.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PANOLLAVA_", "AWS_"))}
    with broker.embedded(settings.home, settings.broker_url) as bell:
        least_free = int(settings.least_free_gb * 2**30)
        work = Work(sessions, member, bell.url, environment, trainer, foreign_share=settings.foreign_share, least_free=least_free)
        if artifacts.is_remote(settings.artifacts):
            _every(SWEEP_SECONDS, lambda: uploads.left_behind(sessions, settings.scratch), work.leaving)
            _every(SWEEP_SECONDS, lambda: discards.sweep(sessions.reading, sessions.writing), work.leaving)
            _every(PRUNE_SECONDS, lambda: scratch.trim(settings.scratch), work.leaving)
        code = _work(work)
    try:
        roster.leave(sessions.writing, member)
    except AWAY as error:
        log.warning("The database is away and will find out by itself that this worker has left. %r", error)
    sys.exit(code)


def _work(work: Work) -> int:
    """Until a signal, and until the job at hand is saved and queued again. The exit status."""
    log.info("Worker %s takes jobs for %s.", work.member.name, ", ".join(work.member.devices))
    _every(HEARTBEAT_SECONDS, lambda: _beat(work), work.leaving)
    _every(GLANCE_SECONDS, work.glance.look, work.leaving)
    patiently(work.recovery.others, work.leaving)
    _every(SWEEP_SECONDS, work.recovery.others, work.leaving)
    _every(SWEEP_SECONDS, work.take, work.leaving)
    _every(PRUNE_SECONDS, lambda: _prune(work), work.leaving)
    app = celery_app.build(work.broker_url, work.take)
    try:
        return celery_app.run(app, work.member.name, doorbell.queue(len(work.member.devices)), work.leaving)
    finally:
        work.leaving.set()
        work.wait()


def _prune(work: Work) -> None:
    with work.sessions.writing.begin() as session:
        events.prune(session)


def _beat(work: Work) -> None:
    try:
        roster.beat(work.sessions.writing, work.member)
    except Taken:
        log.exception("Leaving.")
        os.kill(os.getpid(), signal.SIGTERM)


def _every(seconds: float, action: Callable[[], object], leaving: Event) -> None:
    """Do it now and then until told to leave, in a thread. There is nobody above to raise to: what goes wrong is written down and tried again."""

    def rounds() -> None:
        while not leaving.is_set():
            try:
                action()
            except (Away, *AWAY) as error:
                log.warning("The database or the store is away. %r", error)
            except Exception:
                log.exception("Trying again in %.0f s.", seconds)
            leaving.wait(seconds)

    Thread(target=rounds, daemon=True).start()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker", description="Take jobs and train, one at a time on all of this worker's devices.")
    help = "CUDA devices it owns, such as 0,1, or cpu; all of this machine if not given. With cpu,cpu a run shares the CPU between two processes."
    parser.add_argument("--devices", type=_devices, help=help)
    parser.add_argument("--name", help="Name of the worker; made of the host and its devices if not given.")
    options = parser.parse_args()
    options.devices = options.devices or all_devices()
    options.name = options.name or f"{socket.gethostname()}-{'-'.join(options.devices)}"
    return options


def _devices(text: str) -> list[str]:
    devices = [part.strip() for part in text.split(",")]
    if set(devices) != {"cpu"} and (not all(part.isdigit() for part in devices) or len(set(devices)) < len(devices)):
        raise argparse.ArgumentTypeError(f"{text!r} is neither cpu, once or more, nor different CUDA devices such as 0,1")
    return devices


if __name__ == "__main__":
    main()
