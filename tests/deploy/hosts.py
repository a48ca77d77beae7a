"""Both hosts of docs/deploy.md on this machine: what the page has root type is typed by us, below a directory for each host, on ports that are free.

What this cannot show: packages of a distribution, users of a system, systemd itself, a network.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from app import processes
from tests.deploy import page

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.2"
SHIMS = """
set -eu
apt-get() { :; }   # installed already
systemctl() { :; }  # the test starts and stops
scp() { :; }       # Host.copy
runuser() { shift 3; "$@"; }
install() { command install -m "$2" "${@: -2}"; }  # owners are the test's
"""


@dataclass
class Host:
    """One of them. `yours` is what a reader puts in for the page's own values."""

    name: str
    root: Path
    ports: dict[str, int]
    yours: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for directory in ("etc/panollava", "etc/postgresql", "etc/redis", "var/lib/panollava"):
            (self.root / directory).mkdir(parents=True)
        (self.root / "etc/redis/redis.conf").write_text(f'bind 127.0.0.1 -::1\nport 6379\nsave ""\ndir {self.root}\n')

    def here(self, text: str) -> str:
        """Of the page, with places of this machine for those of the host."""
        text = re.sub(r"/(?=etc/|var/lib/)", f"{self.root}/", text.replace("/opt/panollava/bin", str(Path(sys.executable).parent)))
        for port, ours in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(ours), text)
        for name, value in self.yours.items():
            text = re.sub(rf"(?m)^{name}=\S+", f"{name}={value}", text)
        return text

    def type(self, *titles: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """These blocks in one shell, which ends at the first command that fails."""
        script = SHIMS + "".join(self.here(page.blocks()[title]) for title in titles)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        told = {"HOME": str(self.root), "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "200"} | environment
        return subprocess.run(["bash", "-c", script], cwd=self.root, env=told, capture_output=True, text=True, check=False)

    def copy(self, other: "Host") -> None:
        """What its `scp` brings to the other, which has the same paths."""
        line = shlex.split(page.blocks()["on gpu1: to gpu2"])
        assert (line[:2], line[-1]) == (["scp", "-p"], f"{other.name}:/etc/panollava/")
        for file in line[2:-1]:
            text = (self.root / file.lstrip("/")).read_text()
            (other.root / file.lstrip("/")).write_text(text.replace(str(self.root), str(other.root)))

    def settings(self) -> dict[str, str]:
        """The services' EnvironmentFile, as systemd reads it."""
        (file,) = {page.service(name)["EnvironmentFile"] for name in page.units()}
        lines = [shlex.split(line) for line in Path(self.here(file)).read_text().splitlines()]
        assert all(len(line) == 1 for line in lines), lines
        return dict(line[0].split("=", 1) for line in lines)

    def start(self, unit: str, instance: str = "", program: str | None = None, **more: str) -> subprocess.Popen[bytes]:
        """A service as a process; `program` is the test's instead of the page's."""
        told = page.service(unit)
        command = shlex.split(self.here(told["ExecStart"]).replace("%I", instance))
        if program:
            command[:2] = [sys.executable, "-m", program]
        environment = {"HOME": str(self.root), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | self.settings() | more
        with (self.root / f"{unit}.log").open("wb") as log:
            return subprocess.Popen(command, cwd=self.here(told["WorkingDirectory"]), env=environment, stdout=log, stderr=log)

    def log(self, unit: str) -> str:
        return (self.root / f"{unit}.log").read_text()


def free_ports() -> dict[str, int]:
    """For those of the page."""
    return {port: processes.free_port() for port in ("5432", "6379")}


def missing() -> list[str]:
    """Programs of the page that are not here."""
    return [program for program in ("bash", "openssl", "redis-server") if shutil.which(program) is None]
