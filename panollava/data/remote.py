"""Download the images that a table names by address: once each, into the cache, and from the public internet only.

Who writes a table must not reach what only this machine can reach. So a name is resolved here, every address it has is looked at, and
the connection is made to the very address that was looked at; a redirect is a new address. Proxies are not used: they would resolve anew.
"""

import hashlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit
from uuid import uuid4

from panollava.data.room import PART, Room
from panollava.errors import BadInput

MOST_BYTES = 256 << 20
REDIRECTS = 5
SILENCE_SECONDS, WHOLE_SECONDS = 20.0, 300.0
"""How long a server may say nothing, and how long one image may take."""
AT_ONCE = 8
CHUNK = 1 << 16

OnProgress = Callable[[int, int], None]
IsOpen = Callable[[str], bool]
"""Whether an IP address may be connected to."""


def is_public(address: str) -> bool:
    """Not this machine, not its network, not a cloud's metadata service, not one of them in the clothes of IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return is_public(str(inner))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def fetch_all(
    room: Room, urls: Sequence[str], *, on_progress: OnProgress | None = None, is_open: IsOpen = is_public, most_bytes: int = MOST_BYTES
) -> Mapping[str, Path | BadInput]:
    """The file of each address, or why there is none. What was downloaded before is not asked for again."""

    def one(url: str) -> Path | BadInput:
        try:
            return fetch(room, url, is_open, most_bytes)
        except BadInput as error:
            return error

    files: dict[str, Path | BadInput] = {}
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for url, file in zip(urls, pool.map(one, urls), strict=True):
            files[url] = file
            if on_progress:
                on_progress(len(files), len(urls))
    finally:
        pool.shutdown(cancel_futures=True)
    return files


def fetch(room: Room, url: str, is_open: IsOpen = is_public, most_bytes: int = MOST_BYTES) -> Path:
    """The downloaded file. Raises BadInput naming the address and what is wrong with it or with what it gave."""
    path = room.root / "remote" / hashlib.sha256(url.encode()).hexdigest()
    if room.use(path):
        return path
    deadline = time.monotonic() + WHOLE_SECONDS
    part = path.with_name(f"{path.name}.{uuid4().hex}{PART}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _answer(url, is_open) as response, part.open("wb") as file:
            for chunk in _body(response, most_bytes, deadline):
                file.write(chunk)
        with room.taken(path, part.stat().st_size) as has_room:
            if not has_room:
                raise ValueError(f"no room is left below {room.root}; raise cache_gb")
            part.replace(path)
    except (OSError, HTTPException, ValueError) as error:
        raise BadInput(f"{url}: {str(error) or repr(error)}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


@contextmanager
def _answer(url: str, is_open: IsOpen) -> Iterator[HTTPResponse]:
    """A 200 that calls itself an image, through redirects. Raises ValueError for anything else."""
    here = url
    for _ in range(REDIRECTS + 1):
        parts = urlsplit(here)
        connection = _connection(here, parts, is_open)
        try:
            connection.request("GET", parts._replace(scheme="", netloc="", fragment="").geturl() or "/", headers=HEADERS)
            response = connection.getresponse()
            if response.status in (301, 302, 303, 307, 308) and (target := response.headers["Location"]):
                here = urljoin(here, target)
                continue
            _check(response)
            yield response
            return
        finally:
            connection.close()
    raise ValueError(f"more than {REDIRECTS} redirects")


HEADERS = {"User-Agent": "panollava", "Accept": "image/*", "Accept-Encoding": "identity"}


def _check(response: HTTPResponse) -> None:
    if response.status != 200:
        raise ValueError(f"the server answered {response.status} {response.reason}")
    if not (kind := response.headers.get_content_type()).startswith("image/"):
        raise ValueError(f"the server sent {kind}, which is no image")


def _body(response: HTTPResponse, most: int, deadline: float) -> Iterator[bytes]:
    """Raises ValueError for a body that is too long, too slow or cut off."""
    promised, got = response.length, 0
    if promised is not None and promised > most:
        raise ValueError(f"{promised:,} bytes; at most {most:,} are downloaded")
    while chunk := response.read1(CHUNK):
        got += len(chunk)
        if got > most:
            raise ValueError(f"more than {most:,} bytes, and no more are downloaded")
        if time.monotonic() > deadline:
            raise ValueError(f"not done within {WHOLE_SECONDS:g} seconds")
        yield chunk
    if promised is not None and got < promised:
        raise ValueError(f"{got:,} of {promised:,} bytes came")


def _connection(url: str, parts: SplitResult, is_open: IsOpen) -> HTTPConnection:
    """To an address that was looked at. Raises ValueError for one that may not be connected to."""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url} is no http:// or https:// address")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = _address(parts.hostname, port, is_open)
    if parts.scheme == "https":
        return _Https(parts.hostname, port, address)
    return _Http(parts.hostname, port, address)


def _address(host: str, port: int, is_open: IsOpen) -> str:
    """Of a name that has a closed address beside open ones, none is good."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{host} is unknown ({error})") from None
    addresses = [str(each[4][0]) for each in found]
    if closed := [address for address in addresses if not is_open(address)]:
        raise ValueError(f"{host} is {closed[0]}, which is no public address")
    return addresses[0]


class _Http(HTTPConnection):
    """Connected to an address, whatever its name would resolve to now."""

    def __init__(self, host: str, port: int, address: str) -> None:
        super().__init__(host, port, timeout=SILENCE_SECONDS)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), SILENCE_SECONDS)


class _Https(HTTPSConnection):
    """The same, where the certificate must be the name's."""

    def __init__(self, host: str, port: int, address: str) -> None:
        self._tls = ssl.create_default_context()
        super().__init__(host, port, timeout=SILENCE_SECONDS, context=self._tls)
        self._address = address

    def connect(self) -> None:
        plain: Any = socket.create_connection((self._address, self.port), SILENCE_SECONDS)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)
