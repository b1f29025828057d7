"""The watch over HTTP: who is answered, what a stream tells, and how the command ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import called
from logs import begun, driver, start, whole, write
from ports import free_port

from orchestrator.live import watch as watching
from orchestrator.live.follow import Follower
from orchestrator.live.server import Server
from orchestrator.live.watch import Watch

MAIN = "from orchestrator.cli import main; main()"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of a study that has begun."""
    monkeypatch.setattr(watching, "EVERY", 0.05)
    write(tmp_path / "watched", [begun(), start("dense-00000")])
    watch = Watch(Follower(tmp_path / "watched"))
    watch.start()
    with Server(watch, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        watch.stop()
        server.shutdown()


def asked(
    server: Server, method: str = "GET", path: str = "/", host: str = "localhost"
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    for each in host.split("|"):
        if each:
            connection.putheader("Host", each)
    connection.endheaders()
    answer = connection.getresponse()
    content = b"" if path == "/events" and answer.status == 200 else answer.read()
    return answer.status, answer.headers, content


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:8642", "10.1.2.3", "127.0.0.1"]
)
def test_whoever_names_an_address_or_this_machine_is_answered(server: Server, host: str) -> None:
    status, headers, content = asked(server, host=host)
    assert status == 200
    assert b"<!doctype html>" in content
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


@pytest.mark.parametrize("host", ["", "evil.com", "localhost.evil.com:80", "a|b", "[::1", "@"])
@pytest.mark.parametrize("path", ["/", "/events", "/board", "/report"])
def test_a_name_that_was_made_to_point_here_is_refused(
    server: Server, host: str, path: str
) -> None:
    assert asked(server, path=path, host=host)[0] == 421


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_nothing_but_get_is_answered(server: Server, method: str) -> None:
    status, headers, _ = asked(server, method)
    assert (status, headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize("path", ["/wal.jsonl", "/../study.json", "/board", "/report", "//evil/x"])
def test_what_is_not_there_is_not_found(server: Server, path: str) -> None:
    assert asked(server, path=path)[0] == 404


def events(port: int, count: int) -> Iterator[dict[str, object]]:
    """The states that a stream tells, as a browser would take them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/events")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    while count:
        line = answer.readline()
        if line.startswith(b"data: "):
            count -= 1
            yield json.loads(line[6:])
    connection.close()


def test_a_stream_tells_what_is_new_and_only_then(server: Server) -> None:
    folder = server.watch.follower.folder
    stream = events(server.server_port, 2)
    assert next(stream)["phase"] == "stopped"
    with driver(folder):
        now = next(stream)
        assert now["phase"] == "running"
    assert server.watch.news(0, 0)[0] <= 3


def test_readers_that_left_leave_no_stream_behind(server: Server) -> None:
    for _ in range(3):
        next(events(server.server_port, 1))
    write(server.watch.follower.folder, whole("skipnet-00000"), mode="a")
    assert next(events(server.server_port, 1))["study"] == "watched"


def test_a_port_in_use_and_a_study_that_is_none_are_one_sentence_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ("watch", "quickstart", "--out", str(tmp_path), "--no-browser")
        result = called(capsys, *words, "--port", port)
    assert result.code == 2
    assert f"127.0.0.1:{port}: Address already in use; --port 0 takes a free one" in result.err
    assert called(capsys, *words, "--host", "no.such.host.invalid").code == 2
    result = called(capsys, "watch", "nothing", "--out", str(tmp_path), "--no-browser")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "got 'nothing'" in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_at_once_whoever_reads(tmp_path: Path, number: int) -> None:
    write(tmp_path / "watched", [begun(), start("dense-00000")])
    port = free_port()
    words = ["watch", "watched", "--out", str(tmp_path), "--no-browser", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Watch:  http://127.0.0.1:{port}/\n"
        streams = [events(port, 2) for _ in range(3)]
        assert [next(stream)["study"] for stream in streams] == ["watched"] * 3
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=120)  # a stream that is waited for never ends
    finally:
        process.kill()
    assert (process.returncode, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "watched").iterdir()) == [
        "study.json",
        "wal.jsonl",
    ]
