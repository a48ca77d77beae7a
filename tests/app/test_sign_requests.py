"""Requests to a store are signed with SigV4, by the credentials of the environment: a listener that answers nothing but 404 hears who asks."""

import re
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from app import artifacts

KEY, SECRET, REGION = "AKIAOFATEST", "a secret that is never sent", "eu-central-1"


class Listener(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Heard)
        self.heard: list[BaseHTTPRequestHandler] = []


class Heard(BaseHTTPRequestHandler):
    server: Listener

    def do_HEAD(self) -> None:
        self.server.heard.append(self)
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Not on the test's output."""


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    with Listener() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        told = {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "DEFAULT_REGION": REGION, "ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in told.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setattr(artifacts, "_store", cache(artifacts._store.__wrapped__))  # a client that has not read other variables
        yield server
        server.shutdown()


def test_a_request_carries_the_key_of_the_environment_and_what_only_its_secret_can_sign(listener: Listener) -> None:
    assert not artifacts.exists("s3://bucket/run-1/best.ckpt")
    (asked,) = listener.heard
    said = re.fullmatch(
        rf"AWS4-HMAC-SHA256 Credential={KEY}/\d{{8}}/{REGION}/s3/aws4_request, SignedHeaders=(\S+), Signature=([0-9a-f]{{64}})",
        asked.headers["Authorization"],
    )
    assert said and asked.path == "/bucket/run-1/best.ckpt"
    signed = {name: asked.headers[name] for name in said[1].split(";")}
    assert signed.keys() >= {"host", "x-amz-date"} and SECRET not in str(asked.headers)
    assert said[2] == signature(asked.path, signed, listener)


def signature(path: str, headers: dict[str, str], listener: Listener) -> str:
    """As the store computes it."""
    request = AWSRequest("HEAD", f"http://127.0.0.1:{listener.server_port}{path}", headers)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = S3SigV4Auth(Credentials(KEY, SECRET), "s3", REGION)
    signed: str = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    return signed
