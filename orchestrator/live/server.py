"""The watch over HTTP: a page, its events and its boards, for browsers on this machine.

The standard library's server will do: the readers are a handful of people, and it adds no
dependency. It answers GET alone, and only where the Host is an address or the name that it was
told to listen on: another name may be a stranger's page that made it point here (DNS rebinding).
"""

import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from methods.errors import StudyError
from orchestrator.live import page
from orchestrator.live.follow import Follower
from orchestrator.live.watch import Watch

LESS = 10
"""By how much the watch is nicer than what started it."""
BEAT = 10.0
"""Seconds after which a stream without news shows that it lives."""
STREAMS = 64
"""Streams of events at once, at most."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
WITHIN = {"Content-Security-Policy": "frame-ancestors 'self'"}
"""Policy of a board's frame; the board has one of its own beside it."""
HTML = "text/html; charset=utf-8"


class Server(ThreadingHTTPServer):
    """Serves a watch on a port of `host`; `port` 0 takes a free one.

    Raises:
        StudyError: the port is in use, or the host is none of this machine's.
    """

    daemon_threads = True  # a stream never ends by itself

    def __init__(self, watch: Watch, host: str, port: int) -> None:
        self.watch = watch
        self.host = host
        self.streams = threading.BoundedSemaphore(STREAMS)
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            super().__init__((str(address[0]), port), _Handler)
        except OSError as error:
            raise StudyError(
                f"--host and --port must be an address of this machine with a free port, but "
                f"{host}:{port}: {error.strerror}; --port 0 takes a free one"
            ) from None

    def server_bind(self) -> None:
        """Bind; without the look-up of a name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing where a reader has gone; else as any server does."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def serve(folder: Path, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves the watch of a study's folder until SIGINT or SIGTERM; `ready` is told its address.

    At a lower priority: the workers of the sweep may need this machine's processors.

    Raises:
        StudyError, StorageError: the address cannot be listened on, or what lies in the folder is
            not the log of a study.
    """
    follower = Follower(folder)
    follower.advance()
    watch = Watch(follower)
    with Server(watch, host, port) as server:
        stop = SimpleQueue[None]()  # an event's lock may be held when a handler would set it
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.put(None))
        os.nice(LESS)
        watch.start()
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        ready(server.url)
        stop.get()
        watch.stop()
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "isoflop", ""
    timeout = 60
    """Seconds for which a client may say nothing of a request, or take nothing of an answer."""

    def do_GET(self) -> None:
        """The page, its events, or a board."""
        if not self._meant():
            self._refuse(
                HTTPStatus.MISDIRECTED_REQUEST,
                "The Host of a request must be an address, localhost or the name given by --host.",
            )
            return
        watch = self.server.watch
        match urlsplit(self.path).path:
            case "/":
                self._answer(page.page(watch.follower.folder.name), HTML, page.headers())
            case "/events":
                self._stream()
            case "/board" if (board := watch.board()) is not None:
                self._answer(board, HTML, WITHIN)
            case "/report" if (report := watch.follower.report) is not None:
                self._answer(report.read_bytes(), HTML, WITHIN)
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def parse_request(self) -> bool:
        """Whether a request is to be answered: nothing but GET is, since nothing changes here."""
        if not super().parse_request():
            return False
        if self.command != "GET":
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET is answered.", Allow="GET")
        return self.command == "GET"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, the library's name
        """Nothing: the terminal tells where the page is."""

    def _meant(self) -> bool:
        """Whether the request names this server by an address or by the name that it has."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1:
            return False
        try:
            host = urlsplit(f"//{hosts[0].strip()}").hostname or ""
        except ValueError:
            return False
        if host in ("localhost", self.server.host.lower()):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True

    def _answer(
        self,
        content: bytes,
        kind: str,
        headers: dict[str, str],
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        self._begin(status, {"Content-Type": kind, "Content-Length": str(len(content)), **headers})
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, why: str, **headers: str) -> None:
        self._answer(f"{why}\n".encode(), "text/plain; charset=utf-8", headers, status)

    def _begin(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self) -> None:
        """Each new state as an event, until the reader leaves or the watch stops."""
        if not self.server.streams.acquire(blocking=False):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "Too many pages are open.")
            return
        try:
            self._begin(HTTPStatus.OK, {"Content-Type": "text/event-stream"})
            self.wfile.write(b"retry: 2000\n\n")
            number = 0
            while not self.server.watch.stopped:
                latest, told = self.server.watch.news(number, BEAT)
                event = f"data: {told}\n\n" if latest != number else ": still here\n\n"
                self.wfile.write(event.encode())
                number = latest
        finally:
            self.server.streams.release()
