"""`panollava up`: the dashboard and a worker for every device of this machine, kept alive until somebody ends them."""

import signal
import socket
import sys
import time

from rich.console import Console

from app import processes
from app.devices import all_devices
from app.i18n import _, ngettext
from app.processes import Died
from app.settings import Settings

WATCH_SECONDS = 1.0


def run(settings: Settings) -> int:
    """Exit status: 0 after Ctrl-C or SIGTERM, 1 with the reason when the house does not come up or a process of it does not live."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as an exception it still lets the house be taken down
    console, devices = Console(highlight=False), all_devices()
    try:
        _check_free(settings)
        with processes.running(settings, devices) as house:
            try:
                _greet(console, house, devices)
                while True:
                    _keep_alive(console, house)
                    time.sleep(WATCH_SECONDS)
            except KeyboardInterrupt:
                return 0
            finally:
                console.print(_("Stopping; a run at work saves first and goes on when you come back."))
                for impatience in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(impatience, signal.SIG_IGN)
    except Died as error:
        console.print(str(error), markup=False, soft_wrap=True)
        return 1


def _keep_alive(console: Console, house: processes.House) -> None:
    """Start again what has ended by itself. Raises Died for what does not live."""
    for child in house.children:
        if child.has_ended:
            text = _("The {name} has ended with exit status {status} and is started again; its log is {log}.")
            console.print(text.format(name=child.name, status=child.process.returncode, log=child.log), soft_wrap=True)
            child.revive()


def _check_free(settings: Settings) -> None:
    """Raises Died. Asked before anything is started: the server would only say that an address is in use."""
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host.strip("[]"), settings.port))
        except OSError as error:
            text = _("Nothing can listen on {host}, port {port}: {error}. Is `panollava up` running already? --port takes another one.")
            raise Died(text.format(host=settings.host, port=settings.port, error=error.strerror)) from None


def _greet(console: Console, house: processes.House, devices: list[str]) -> None:
    workers = ngettext("{n} worker", "{n} workers", len(devices)).format(n=len(devices))
    console.print(_("PanoLLaVA is up at {url}, with {workers} ({devices}).").format(url=house.url, workers=workers, devices=", ".join(devices)))
    console.print(_("Sign in, once, within ten minutes:"))
    console.print(f"  {house.link()}", soft_wrap=True)
    logs = ", ".join(str(child.log) for child in house.children)
    console.print(_("`panollava link` prints another link. Logs: {logs}. Ctrl-C ends everything.").format(logs=logs), soft_wrap=True)
