"""Names of the cookies by which a browser is known, and of that which a key travels in.

Cookies ignore ports: a browser sends those of http://localhost:7360 to http://localhost:7361 too. So the port is part of the name, or of
two dashboards on one host name each would sign the other's browsers out. It is the port of the address that the browser used, not the one
we listen on: behind tunnels two servers with the same port of their own are told apart by nothing else.
"""

import re

from fastapi import Request

_PORT = re.compile(r":([0-9]+)$")


def session(request: Request) -> str:
    return f"panollava_session_{_port(request)}"


def key(request: Request) -> str:
    """Sent to the sign-in page alone: the key of a link on its way to being used."""
    return f"panollava_key_{_port(request)}"


def is_tls(request: Request) -> bool:
    return request.url.scheme == "https"


def _port(request: Request) -> str:
    """An address without a port means that of its scheme."""
    found = _PORT.search(request.headers.get("Host", ""))
    return found[1] if found else "443" if is_tls(request) else "80"
