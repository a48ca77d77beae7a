"""The broker: which kind it is, whether it answers, whether a lock was left behind."""

import fcntl
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from sqlalchemy import make_url

from app import broker, doorbell
from app.housekeeping.doctor.finding import Finding
from app.i18n import _
from app.settings import Settings

HARMLESS = _("Jobs are found all the same, at sweeps every {n:.0f} seconds.").format(n=doorbell.SWEEP_SECONDS)


def check(settings: Settings) -> Iterator[Finding]:
    if settings.broker_url is None:
        yield from _embedded(settings.home)
    elif settings.broker_url.startswith("filesystem://"):
        yield _folder(settings.broker_url)
    else:
        name = _("Redis at {url}") if broker.is_redis(settings.broker_url) else "{url}"
        yield _asked(settings.broker_url, name.format(url=_shown(settings.broker_url)), _("start it, or mend PANOLLAVA_BROKER_URL"))


def _embedded(home: Path) -> Iterator[Finding]:
    """One of our own: it lives as long as the first process of the house that wanted it."""
    if broker.find_server() is None:
        yield Finding("broker", "warn", _("plain files, because there is no redis-server"), _("install redis-server: jobs start a second sooner"))
        return
    directory = home / "redis"
    url = broker.embedded_url(directory) if directory.is_dir() else None
    is_owned = url is not None and _is_locked(directory / "owner.lock")
    if url and is_owned:
        yield _asked(url, _("the house's own Redis"), _("end the house and start it again; its log is {log}").format(log=directory / "redis.log"))
    elif url and broker.answers(url):
        text = _("the house's own Redis, left behind by an owner that was killed")
        yield Finding("broker", "warn", text, _("nothing: whoever starts next takes it over and ends it"))
    else:
        yield Finding("broker", "ok", _("the house's own Redis, which starts with the house"))


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _asked(url: str, name: str, do: str) -> Finding:
    started = perf_counter()
    if trouble := doorbell.trouble(url):
        return Finding("broker", "fail", _("{name} does not answer: {error}. {harmless}").format(name=name, error=trouble, harmless=HARMLESS), do)
    return Finding("broker", "ok", _("{name} answers in {ms:.0f} ms").format(name=name, ms=1000 * (perf_counter() - started)))


def _folder(url: str) -> Finding:
    path = broker.folder(url)
    if trouble := doorbell.trouble(url):
        text = _("plain files, and {path} cannot be written: {error}. {harmless}").format(path=path, error=trouble, harmless=HARMLESS)
        return Finding("broker", "fail", text, _("make the directory, or mend PANOLLAVA_BROKER_URL"))
    return Finding("broker", "ok", _("plain files in {path}").format(path=path))


def _shown(url: str) -> str:
    """Without its password."""
    return make_url(url).render_as_string(hide_password=True)
