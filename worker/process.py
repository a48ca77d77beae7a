"""A trainer as an operating-system process: started in a session of its own, recognised again, stopped with growing force.

Knows pids, signals and the stop file; no rows and no jobs. Reads /proc, so it needs Linux.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from app.jobs.stopping import KILL_AFTER, TERM_AFTER
from panollava.events import LEASE_VARIABLE, STOP_FILE
from worker import memory
from worker.lease import LEASE_SECONDS

OUTPUT_FILE = "output.log"

# The trainer waits for a line on its stdin, which the worker writes when the database knows its pid. A worker that dies
# before that closes the pipe instead, and no process is left that nobody can find.
_GATE = 'read -r go || exit 70; exec "$@" </dev/null'


@dataclass(frozen=True)
class Identity:
    """One process for all time: a pid alone is reused, also after a restart of the machine or in another container."""

    pid: int
    started: float
    """Seconds after the start of the machine."""
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """Raises ProcessLookupError."""
        return cls(pid, _started(pid), boot_id())

    @property
    def here(self) -> bool:
        """Whether it belongs to this boot of this machine, in this container: only then can we tell whether it lives."""
        return self.boot_id == boot_id()

    @property
    def alive(self) -> bool:
        """A zombie is dead: it writes nothing any more. Ask only about a process that is `here`."""
        try:
            return _started(self.pid) == self.started
        except ProcessLookupError:
            return False

    def terminate(self) -> None:
        """SIGTERM to the process alone: its data loaders would die of it and take the last checkpoint with them."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the process and its children: data loaders, other ranks."""
        if self.alive:
            self._kill_group()

    def kill_rest(self) -> None:
        """SIGKILL to the children of one that has ended itself, unless its number is another process's by now."""
        try:
            is_another = _stat(self.pid)[1] != self.started
        except ProcessLookupError:
            is_another = False
        if not is_another:
            self._kill_group()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def boot_id() -> str:
    """This boot of the kernel and this pid namespace, in which a pid and its start time mean one process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"


def _started(pid: int) -> float:
    """Start of a living process, in seconds after boot. Raises ProcessLookupError, also for a zombie."""
    state, started = _stat(pid)
    if state in "ZX":
        raise ProcessLookupError(f"Process {pid} has ended.")
    return started


def _stat(pid: int) -> tuple[str, float]:
    """State and start of a process, living or not reaped yet. Raises ProcessLookupError."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"There is no process {pid}.") from None
    fields = stat.rpartition(")")[2].split()  # field 2, the name, may hold blanks and brackets; fields[0] is field 3
    return fields[0], int(fields[19]) / os.sysconf("SC_CLK_TCK")


class Trainer(Protocol):
    """A process that is followed until it has ended."""

    @property
    def identity(self) -> Identity: ...

    @property
    def exit_code(self) -> int | None:
        """Negative for the signal that killed it; None while it runs, and for ever if it is not our child."""

    @property
    def ran_out_of_memory(self) -> bool | None:
        """Whether the kernel has killed a process here for want of memory since it was started; None where that cannot be told."""

    def has_ended(self) -> bool:
        """Once it has, the children that it left behind are ended too."""

    def kill(self) -> None:
        """End it and its children now."""


class Child:
    """A trainer that this process started. It does nothing until `go`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._memory = process, memory.Watch()
        self.identity = Identity.of(process.pid)

    def go(self) -> None:
        """Open the gate. One that was killed behind it is found by `poll`."""
        gate = self._process.stdin
        if gate:
            with suppress(BrokenPipeError), gate:
                gate.write(b"go\n")

    def poll(self) -> int | None:
        """The exit code, negative for the signal that killed it; None while it runs. Ends the children it left behind."""
        pid = self.identity.pid
        if self._process.returncode is not None:
            return self._process.returncode
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        # Not reaped yet, so the group's number is still its own and cannot hit a stranger.
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        return self._process.wait()

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    @property
    def ran_out_of_memory(self) -> bool | None:
        return self._memory.ran_out

    def has_ended(self) -> bool:
        return self.poll() is not None

    def kill(self) -> None:
        _kill_and_wait(self)


class Adopted:
    """A trainer that another process started, which is dead."""

    exit_code = None
    ran_out_of_memory = None

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def has_ended(self) -> bool:
        if self.identity.alive:
            return False
        self.identity.kill_rest()
        return True

    def kill(self) -> None:
        _kill_and_wait(self)


def _kill_and_wait(trainer: Trainer) -> None:
    trainer.identity.kill()
    while not trainer.has_ended():
        time.sleep(0.01)


def start(
    command: Sequence[str], directory: Path, devices: Sequence[str], environment: Mapping[str, str], lease_seconds: float = LEASE_SECONDS
) -> Child:  # fmt: skip
    """Start the command behind its gate, its words in <directory>/output.log. `devices` are CUDA indices, or `cpu`.

    It leaves by itself when its lease has not been renewed for `lease_seconds`.
    """
    visible = ",".join(device for device in devices if device != "cpu")
    with (directory / OUTPUT_FILE).open("ab") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GATE, "trainer", *command],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            # CUDA then numbers devices as the driver does, from whom their numbers come.
            env={
                "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
                **environment,
                "CUDA_VISIBLE_DEVICES": visible,
                LEASE_VARIABLE: str(lease_seconds),
                "PYTHONUNBUFFERED": "1",
            },
            start_new_session=True,
        )
    return Child(process)


@dataclass(frozen=True)
class Patience:
    """How long a trainer may take to stop."""

    term_after: float = TERM_AFTER
    kill_after: float = KILL_AFTER


class Stopping:
    """The stop of one process, step by step: stop file, SIGTERM, SIGKILL. Call `press` again and again."""

    def __init__(self, target: Identity, directory: Path, patience: Patience) -> None:
        self._target, self._patience = target, patience
        self._since = time.monotonic()
        self._terminated = False
        self.killed = False
        """Whether it had to be killed, so that it could not save."""
        with suppress(OSError):  # a full disk: then SIGTERM says it
            (directory / STOP_FILE).touch()

    def press(self) -> None:
        waited = time.monotonic() - self._since
        if not self._terminated and waited >= self._patience.term_after:
            self._terminated = True
            self._target.terminate()
        if not self.killed and waited >= self._patience.term_after + self._patience.kill_after:
            self.killed = True
            self._target.kill()
