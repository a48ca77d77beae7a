"""docker-compose.yml without a Docker engine: the file against the Compose schema, and what its services run, run as processes.

What this cannot show: that the images build, that containers reach each other by name, that a GPU is passed on.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from sqlmodel import select

from app import broker, db
from app.models import Worker
from tests.deploy import page
from tests.postgres import database

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests" / "deploy" / "compose-schema" / "compose_spec.json").read_text())
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<more>[^}]*))?\}")
WORKERS = ("worker-cpu", "worker-gpu")
OURS = ("migrate", "app", *WORKERS)
SECRETS = {"POSTGRES_PASSWORD": "p4ss", "REDIS_PASSWORD": uuid.uuid4().hex}


def interpolated(text: str, variables: dict[str, str]) -> str:
    """As compose does it, for the forms that the file has."""

    def value(found: re.Match[str]) -> str:
        if variables.get(found["name"]):
            return variables[found["name"]]
        if found["kind"] != "-":
            raise KeyError(found["name"])
        return found["more"]

    return VARIABLE.sub(value, text)


def load(variables: dict[str, str]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(interpolated((ROOT / "docker-compose.yml").read_text(), variables))
    return loaded


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return load(SECRETS)["services"]


def test_the_file_is_what_the_compose_specification_asks_for():
    jsonschema.validate(load(SECRETS), SCHEMA, jsonschema.Draft7Validator)


def test_nothing_starts_without_its_secrets_and_none_is_in_the_file():
    for name in SECRETS:
        with pytest.raises(KeyError, match=name):
            load({key: value for key, value in SECRETS.items() if key != name})
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"PASSWORD: (?!\$\{)", text) and not re.search(r"://\w*:(?!\$\{)[^@\s]+@", text)


def test_every_service_is_brought_back_waits_for_what_it_needs_and_reaps_its_children(services):
    assert {name: service["restart"] for name, service in services.items()} == dict.fromkeys(services, "unless-stopped") | {"migrate": "no"}
    assert all(services[name]["init"] for name in OURS)
    needs = {name: {of: each["condition"] for of, each in service.get("depends_on", {}).items()} for name, service in services.items()}
    for name in ("app", *WORKERS):
        assert needs[name] == {"migrate": "service_completed_successfully", "broker": "service_healthy"}
    assert needs["migrate"] == {"database": "service_healthy"}
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"migrate"}, "only what ends has no health"
    assert (services["worker-cpu"]["profiles"], services["worker-gpu"]["profiles"]) == (["cpu"], ["gpu"])


def test_every_volume_and_build_target_is_there_and_no_image_runs_as_root(services):
    named = {volume.split(":")[0] for service in services.values() for volume in service["volumes"] if not volume.startswith(".")}
    assert named == set(load(SECRETS)["volumes"])
    stages = re.split(r"^FROM \S+ AS (\w+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    by_name = dict(zip(stages[1::2], stages[2::2], strict=True))
    for target in {services[name]["build"]["target"] for name in OURS}:
        assert re.findall(r"^USER (\w+)$", by_name[target], re.MULTILINE) == ["panollava"]


def test_every_worker_has_time_to_save_its_run_before_it_is_killed(services):
    for name in WORKERS:
        assert int(services[name]["stop_grace_period"].removesuffix("s")) >= 2 * page.DRAIN_SECONDS


def test_app_and_workers_are_handed_the_way_to_an_object_store_and_the_images_can_go_it(services):
    store = {"PANOLLAVA_ARTIFACTS", *(f"AWS_{name}" for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION", "ENDPOINT_URL"))}
    for name in ("app", *WORKERS):  # named without a value: from the environment or .env, else not set at all
        assert store <= {key for key, value in services[name]["environment"].items() if value is None}
    installed = re.findall(r"pip install --constraint constraints.txt ('?\.\S*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert installed == ["'.[s3]'"] * 2


def test_what_the_image_copies_is_what_the_package_needs():
    copied = set(re.findall(r"^COPY (\w+) \w+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    packages = set(re.search(r"include = \[(.*)\]", (ROOT / "pyproject.toml").read_text())[1].replace('"', "").replace("*", "").split(", "))
    assert copied == packages and all(f"!{name}" in (ROOT / ".dockerignore").read_text().split() for name in copied)


class Stack:
    """The services as processes: their commands and environments, with addresses of this machine for those of containers."""

    def __init__(self, services: dict[str, Any], home: Path, database_url: str) -> None:
        self.services, self.home, self.database_url = services, home, database_url
        self.ports = {7360: free_port(), 6379: free_port()}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, name: str) -> dict[str, str]:
        """A container has nothing of ours but its own variables."""
        given = {key: self.here(str(value)) for key, value in self.services[name]["environment"].items() if value is not None}
        places = {"PANOLLAVA_DATABASE_URL": self.database_url, "PANOLLAVA_HOME": str(self.home), "PANOLLAVA_ROOTS": str(self.home)}
        programs = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        return programs | given | {key: value for key, value in places.items() if key in given}

    def here(self, text: str) -> str:
        text = text.replace("@broker:6379", f"@127.0.0.1:{self.ports[6379]}")
        return text.replace("127.0.0.1:7360", f"127.0.0.1:{self.ports[7360]}")

    def start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        command = [*self.services[name]["command"], *more]
        if command[0] == "redis-server":
            command[0] = str(broker.find_server())
        with (self.home / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(command, cwd=self.home, env=self.environment(name), stdout=log, stderr=log)
        return self.processes[name]

    def is_healthy(self, name: str) -> bool:
        """What its own health check says."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        if command[0] == "redis-cli":
            command[1:1] = ["-p", str(self.ports[6379])]
        done = subprocess.run([self.here(each) for each in command], env=self.environment(name), capture_output=True, check=False)
        return done.returncode == 0 and (command[0] != "redis-cli" or done.stdout.strip() == b"PONG")

    def doctor(self) -> dict[str, str]:
        """What it says of the parts that every house has."""
        done = subprocess.run(["panollava", "doctor", "--json"], cwd=self.home, env=self.environment("app"), capture_output=True, check=False)
        told = {each["check"]: each["level"] for each in json.loads(done.stdout)}
        return {name: told[name] for name in ("database", "migrations", "database writes", "broker", "workers")}

    def until(self, look: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + 60
        while not look():
            assert time.monotonic() < deadline and self.processes[name].poll() is None, (self.home / f"{name}.log").read_text()
            time.sleep(0.1)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def stack(tmp_path, request):
    """With the CPU for the GPU worker's device."""
    if broker.find_server() is None or shutil.which("redis-cli") is None:
        pytest.skip("no redis-server and redis-cli")
    with database(request.getfixturevalue("postgres_url")) as url:
        stack = Stack(load(SECRETS | {"PANOLLAVA_DEVICES": "cpu"})["services"], tmp_path, url)
        yield stack
        stack.close()


@pytest.mark.postgres
@pytest.mark.redis
def test_the_services_commands_make_a_house_in_the_order_of_the_file(stack):
    stack.start("broker", "--port", str(stack.ports[6379]), "--bind", "127.0.0.1")
    stack.until(lambda: stack.is_healthy("broker"), "broker")
    assert stack.start("migrate").wait(120) == 0, (stack.home / "migrate.log").read_text()
    app = stack.start("app", "--port", str(stack.ports[7360]))
    stack.until(lambda: stack.is_healthy("app"), "app")
    engine = db.engine(stack.database_url)
    for name in WORKERS:  # one after the other, for here they would share the CPU
        worker = stack.start(name)
        stack.until(lambda name=name: "ready." in (stack.home / f"{name}.log").read_text() and stack.is_healthy(name), name)
        if name == "worker-cpu":
            assert stack.doctor() == dict.fromkeys(("database", "migrations", "database writes", "broker", "workers"), "ok")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0 and not stack.is_healthy(name)
    app.send_signal(signal.SIGTERM)
    assert app.wait(60) == 0
    with db.session_factory(engine)() as session:
        joined = session.exec(select(Worker.name, Worker.devices, Worker.stopped_at).order_by(Worker.name)).all()
    engine.dispose()
    assert [row[:2] for row in joined] == [("worker-cpu", ["cpu"]), ("worker-gpu-cpu", ["cpu"])] and all(row[2] for row in joined)
