"""What the driver says of this machine's GPUs: memory, use, and the processes on each. Asks nvidia-smi, whose answers come from NVML.

Knows no rows. Which of the processes belong to the house is the worker's business.
"""

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from app.i18n import _, ngettext

PATIENCE = 20.0
"""Seconds. Without a persistent driver the first question takes some; a driver that has crashed never answers."""
MIB = 1 << 20
# The third field of both is a name, in which there may be commas.
_GPUS = ("index", "uuid", "name", "memory.used", "memory.total", "utilization.gpu")
_PROCESSES = ("gpu_uuid", "pid", "process_name", "used_memory")


class NoAnswer(Exception):
    """The driver is there and cannot say."""


class Process(BaseModel):
    """One process that computes on a GPU."""

    model_config = ConfigDict(frozen=True)

    pid: int
    name: str
    memory: int | None
    """Bytes of the GPU's; None where the driver does not tell, as in some containers."""
    is_ours: bool | None = None
    """Whether it is a trainer of this house, or a child of one. None where that cannot be told: it is in another container, or has just ended."""


class Gpu(BaseModel):
    """One GPU at one moment. Memory in bytes, `use` in percent; None is what the driver does not know."""

    model_config = ConfigDict(frozen=True)

    index: str
    name: str
    memory_used: int | None
    memory_total: int | None
    use: int | None
    processes: list[Process] = []

    @property
    def foreign(self) -> list[Process]:
        """Processes that are no run of this house."""
        return [each for each in self.processes if each.is_ours is False]

    @property
    def foreign_share(self) -> float:
        """How much of its memory those hold, 0 to 1."""
        return sum(each.memory or 0 for each in self.foreign) / self.memory_total if self.memory_total else 0.0

    def occupied_by(self) -> str:
        """Who else is on it."""
        names = ", ".join(_("{name} (pid {pid})").format(name=each.name, pid=each.pid) for each in self.foreign)
        text = ngettext(
            "GPU {index} is occupied by {names}, which is no run of this house",
            "GPU {index} is occupied by {names}, which are no runs of this house",
            len(self.foreign),
        )
        return text.format(index=self.index, names=names)


def read(indices: Sequence[str]) -> list[Gpu]:
    """These GPUs, with whatever computes on them; nothing where no driver is. Raises NoAnswer."""
    driver = shutil.which("nvidia-smi")
    if driver is None or not set(indices) - {"cpu"}:
        return []
    gpus, processes = _ask(driver, "gpu", _GPUS), _ask(driver, "compute-apps", _PROCESSES)
    return [_gpu(row, [_process(each) for each in processes if each[0] == row[1]]) for row in gpus if row[0] in indices]


def _ask(driver: str, what: str, fields: Sequence[str]) -> list[list[str]]:
    """Raises NoAnswer."""
    command = [driver, f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except subprocess.SubprocessError as error:
        raise NoAnswer(f"nvidia-smi gave no answer: {error!r} {getattr(error, 'stdout', None) or ''}".strip()) from None
    rows = [line.split(", ") for line in asked.stdout.splitlines()]
    if odd := [row for row in rows if len(row) < len(fields)]:
        raise NoAnswer(f"nvidia-smi was asked for {', '.join(fields)} and said {odd[0]}.")
    return [_whole_name(row, len(row) - len(fields)) for row in rows]


def _whole_name(row: Sequence[str], commas: int) -> list[str]:
    return [*row[:2], ", ".join(row[2 : 3 + commas]), *row[3 + commas :]]


def _gpu(row: Sequence[str], processes: Iterable[Process]) -> Gpu:
    index, _gpu_uuid, name, used, total, use = row
    return Gpu(index=index, name=name, memory_used=_mib(used), memory_total=_mib(total), use=_number(use), processes=list(processes))


def _process(row: Sequence[str]) -> Process:
    _gpu_uuid, pid, name, used = row
    return Process(pid=int(pid), name=Path(name).name or name, memory=_mib(used))


def _number(text: str) -> int | None:
    """The driver writes [N/A] or [Not Supported] for what it does not know."""
    return int(text) if text.strip().isdigit() else None


def _mib(text: str) -> int | None:
    number = _number(text)
    return None if number is None else number * MIB
