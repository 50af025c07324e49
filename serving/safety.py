# SPDX-License-Identifier: Apache-2.0
"""What the server refuses, whatever is asked for: other sites' requests, too large bodies; and its headers.

A page on another site can send requests to a server on this machine. Two checks stop it. `Host` must be a name of this
server: by DNS rebinding, a site's own name can lead to 127.0.0.1, but then `Host` holds that name. `Origin`, which
browsers send along with whatever changes something, must be the server's own.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Set
from urllib.parse import urlsplit

from flask import Flask, Request, Response, request

MOST_BODY_BYTES = 256 << 20  # of one request; a PNG file of the largest photos has about 180 MB
MOST_TEXT_BYTES = 1 << 20  # of all fields that are not files
MOST_PARTS = 250
LOOPBACK = {"localhost", "127.0.0.1", "::1"}  # the usual names
HEADERS = {
    # nothing but this server's own files, and no script or style within a page
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Refused(Exception):
    """A request that is answered with an error: the HTTP `status`, and a reason that says what to do."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class BoundedRequest(Request):
    """A request of bounded size; Flask answers larger ones with 413."""

    max_content_length = MOST_BODY_BYTES
    max_form_memory_size = MOST_TEXT_BYTES
    max_form_parts = MOST_PARTS


def guard(app: Flask, host: str) -> None:
    """Check each request to a server that listens on `host`, and add `HEADERS` to each answer."""
    app.request_class = BoundedRequest
    names = own_names(host)

    @app.before_request
    def check() -> None:
        name = name_in(request.headers.get("Host", ""))
        # an address is no name that another site could have made lead here
        if name not in names and (is_loopback(host) or not is_address(name)):
            raise Refused(421, f"this server is not {name[:100]!r}; open it by the address that it printed")
        check_origin(request)

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        # pictures are private, and page and server must be of the same version
        response.headers["Cache-Control"] = "no-store" if request.path.startswith("/api") else "no-cache"
        return response


def own_names(host: str) -> Set[str]:
    """The names by which a server that listens on `host` is reached."""
    if is_loopback(host):
        return {*LOOPBACK, host.lower()}
    return {*LOOPBACK, host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a server that listens on `host`, a name or an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK


def name_in(netloc: str) -> str:
    """The name in NAME:PORT, [ADDRESS]:PORT or NAME; an empty string if there is none."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    """Return whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False


def check_origin(request: Request) -> None:
    """Raise Refused if a request that may change something comes from a page of another site."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    origin = request.headers.get("Origin")
    if origin is None:
        # no browser of these years, or curl; a browser's other header says the same
        foreign = request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")
    else:
        foreign = netloc_of(origin) != request.headers.get("Host", "").lower()
    if foreign:
        raise Refused(403, "this request comes from another site's page; only this server's own page may send it")


def netloc_of(origin: str) -> str:
    """NAME:PORT of an `Origin` header; an empty string for "null" and what is not one."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
