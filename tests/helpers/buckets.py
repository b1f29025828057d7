"""A real S3 server of the tests, and its clients' settings."""

import contextlib
import http.client
import json
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from orchestrator.record.depot import bucket

NAME = "runs"
"""Its one bucket."""
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAISOFLOP", "AWS_SECRET_ACCESS_KEY": "hidden-word"}


class S3:
    """The server, which can be away for a while: it keeps its objects."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.host, self.port = self._server.get_host_and_port()
        self._ask("POST", "/moto-api/reset")  # a server before it had the same memory
        self._ask("PUT", f"/{NAME}")

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    def names(self, prefix: str = "") -> list[str]:
        """The objects below a prefix, without the empty ones that stand for folders."""
        selector = fs.FileSelector(
            f"{NAME}/{prefix}".rstrip("/"), recursive=True, allow_not_found=True
        )
        listed = self._files.get_file_info(selector)
        return sorted(
            each.path.removeprefix(f"{NAME}/") for each in listed if each.type == fs.FileType.File
        )

    def put(self, name: str, content: bytes) -> None:
        with self._files.open_output_stream(f"{NAME}/{name}") as stream:
            stream.write(content)

    def get(self, name: str) -> bytes:
        with self._files.open_input_stream(f"{NAME}/{name}") as stream:
            return bytes(stream.read())

    def know_no_key(self) -> None:
        """From now on the server asks who its clients are, and knows none of them."""
        self._ask("POST", "/moto-api/reset-auth", b"0")

    def know_any_key(self) -> None:
        self._ask("POST", "/moto-api/reset-auth", b"Infinity")

    def leave(self) -> None:
        """No longer answer."""
        self._server.stop()

    def come_back(self) -> None:
        """Answer again, at the same address."""
        self._server = ThreadedMotoServer(ip_address=self.host, port=self.port, verbose=False)
        self._server.start()

    @property
    def _files(self) -> fs.FileSystem:
        place = f"{self.host}:{self.port}"
        keys = dict(zip(("access_key", "secret_key"), KEYS.values(), strict=True))
        return fs.S3FileSystem(endpoint_override=place, scheme="http", region="us-east-1", **keys)

    def _ask(self, verb: str, path: str, body: bytes = b"") -> None:
        connection = http.client.HTTPConnection(self.host, self.port)
        with contextlib.closing(connection):
            connection.request(verb, path, body)
            assert connection.getresponse().status == 200, json.dumps([verb, path])


@contextlib.contextmanager
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A server, which this process and those that it starts are told of as AWS's tools are."""
    server = S3()
    bucket._store.cache_clear()  # it may be of a server before this one
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": server.endpoint}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    try:
        yield server
    finally:
        server.leave()
