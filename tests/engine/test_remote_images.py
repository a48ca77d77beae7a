"""Images by address: what is downloaded, from where, how much of it, and how often."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pil

from panollava.config import RunConfig
from panollava.data import remote
from panollava.data.images import load_panorama
from panollava.data.index import build_index
from panollava.data.remote import fetch, fetch_all, is_public
from panollava.data.room import Room
from panollava.errors import BadInput
from panollava.training.data import access
from panollava.views import Cutter, ring


def png(width: int = 64, height: int = 32) -> bytes:
    file = BytesIO()
    pil.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


class Server:
    """A web server of this machine. `answers` are (status, headers, body) by path."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append((self.headers["Host"], self.path))
                status, headers, body = server.answers[self.path]
                self.send_response(status)
                for name, value in ({"Content-Type": "image/png", "Content-Length": str(len(body))} | headers).items():
                    if value:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def add(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> str:
        self.answers[path] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
        return self.address + path


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "cache", 10**9)


def anywhere(_: str) -> bool:
    return True


def refused(room: Room, url: str, is_open: Callable[[str], bool] = anywhere, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        fetch(room, url, is_open, **options)
    assert str(caught.value).startswith(f"{url}: ")
    remote_files = room.root / "remote"
    assert not remote_files.exists() or not any(remote_files.iterdir()), "nothing is left of it"
    return str(caught.value)


def test_an_image_is_downloaded_once_and_read_like_any_other(server: Server, room: Room, tmp_path: Path) -> None:
    url = server.add("/pano.png?size=large", png())
    seen: list[tuple[int, int]] = []

    def index() -> Any:
        csv = tmp_path / "train.csv"
        csv.write_text(f"url,query,annotation\n{url},what,a chair\n{url},where,left\n")
        return build_index(
            csv, fetch=lambda urls: fetch_all(room, urls, is_open=anywhere, on_progress=lambda done, total: seen.append((done, total)))
        )

    first, second = index(), index()
    assert first == second and first.row_image == (0, 0)
    assert first.images[0].read_bytes() == png() and load_panorama(first.images[0]).shape == (32, 64, 3)
    assert server.asked == [(server.address.removeprefix("http://"), "/pano.png?size=large")] and seen == [(1, 1), (1, 1)]


def test_a_redirect_is_followed_and_looked_at_anew(server: Server, room: Room) -> None:
    server.add("/end.png", png())
    url = server.add("/start", status=302, Location="/end.png")
    assert fetch(room, url, anywhere).read_bytes() == png()
    looked_at: list[str] = []

    def only_once(address: str) -> bool:
        looked_at.append(address)
        return len(looked_at) == 1

    other = server.add("/other", status=301, Location=f"{server.address}/end.png")
    fresh = Room(room.root.parent / "second", 10**9)
    assert "which is no public address" in refused(fresh, other, only_once)
    assert looked_at == ["127.0.0.1"] * 2


def test_a_redirect_to_a_file_or_in_a_circle_is_refused(server: Server, room: Room) -> None:
    assert "file:///etc/passwd is no http:// or https:// address" in refused(room, server.add("/file", status=302, Location="file:///etc/passwd"))
    assert "more than 5 redirects" in refused(room, server.add("/circle", status=307, Location="/circle"))


def test_this_machine_and_its_network_are_not_asked(server: Server, room: Room) -> None:
    port, url = server.http.server_port, server.add("/a.png", png())
    names = ["localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
    for here in [url, *(f"http://{name}:{port}/a.png" for name in names)]:
        with pytest.raises(BadInput):
            fetch(room, here)
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::",
     "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::a9fe:a9fe", "192.0.2.1"],
)  # fmt: skip
def test_private_addresses_in_any_clothes_are_closed(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"])
def test_public_addresses_are_open(address: str) -> None:
    assert is_public(address)


def test_the_connection_goes_to_the_address_that_was_looked_at(server: Server, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that says a public address first and a private one after it was looked at must not lead anywhere else."""
    asked, connected = [], []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(address: tuple[str, int], timeout: float) -> Any:
        connected.append(address[0])
        raise ConnectionRefusedError("nobody there")

    monkeypatch.setattr(remote.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(remote.socket, "create_connection", connect)
    assert "nobody there" in refused(room, f"http://rebinding.example:{server.http.server_port}/a.png", is_public)
    assert asked == ["rebinding.example"] and connected == ["93.184.216.34"]


def test_a_name_with_one_private_address_is_refused(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(remote.socket, "getaddrinfo", lambda *_, **__: both)
    assert "two.example is 10.0.0.1, which is no public address" in refused(room, "http://two.example/a.png", is_public)


def test_what_is_too_large_is_refused_also_when_it_does_not_say_so(server: Server, room: Room) -> None:
    body = png()
    assert f"{len(body):,} bytes; at most 100 are downloaded" in refused(room, server.add("/said.png", body), most_bytes=100)
    assert "more than 100 bytes" in refused(room, server.add("/unsaid.png", body, Content_Length=""), most_bytes=100)


def test_what_is_no_image_is_refused(server: Server, room: Room) -> None:
    assert "the server sent text/html, which is no image" in refused(room, server.add("/page", b"<html>", Content_Type="text/html; charset=utf-8"))
    assert "the server answered 404" in refused(room, server.add("/gone.png", b"", status=404))


def test_a_body_that_is_cut_off_is_refused(server: Server, room: Room) -> None:
    assert "bytes came" in refused(room, server.add("/cut.png", png()[:50], Content_Length="5000"))


def test_a_server_that_says_nothing_is_given_up(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert "timed out" in refused(room, f"http://127.0.0.1:{mute.getsockname()[1]}/a.png")


def test_a_download_that_takes_too_long_is_given_up(server: Server, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WHOLE_SECONDS", -1.0)
    assert "not done within" in refused(room, server.add("/slow.png", png()))


@pytest.mark.parametrize("url", ["http://", "http://[", "http://x:99999/a.png", "http://x y/a.png", "https://\0/a.png", "http://..", "http://a\nb/"])
def test_addresses_that_are_none_are_refused(room: Room, url: str) -> None:
    refused(room, url)


def test_one_bad_address_does_not_stop_the_others_and_is_its_row_s_error(server: Server, room: Room, tmp_path: Path) -> None:
    csv = tmp_path / "train.csv"
    csv.write_text(f"url,query,annotation\n{server.add('/a.png', png())},q,a\n{server.add('/b.png', status=500)},q,a\n")
    index = build_index(csv, max_bad_frac=0.5, fetch=lambda urls: fetch_all(room, urls, is_open=anywhere))
    assert len(index.rows) == 1
    assert index.bad == (f"{csv}:3:url: {server.address}/b.png: the server answered 500 Internal Server Error",)


def test_nothing_is_downloaded_unless_it_is_allowed(config: RunConfig) -> None:
    cutter = Cutter(ring(8, 90.0), 32)
    assert access(config, cutter, lambda done, total: None).fetch is None
    allowed = access(config.model_copy(update={"allow_remote": True, "cache": "off"}), cutter, lambda done, total: None)
    assert allowed.fetch is not None and allowed.room is None, "images have to lie somewhere, views need not"
