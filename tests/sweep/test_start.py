"""Every way in which Ray does not start, or is none, is a line that says what would do."""

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import pytest

from methods.errors import ClusterDown, ClusterError
from orchestrator.study.sections import Resources
from orchestrator.sweep import cluster
from orchestrator.sweep.cluster import SLOW_START, preflight

Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A port that answers each connection so."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def http_1(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def greets(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def hangs_up(connection: socket.socket) -> None:
    connection.recv(1)


def says_nothing(connection: socket.socket) -> None:
    connection.settimeout(5)
    while connection.recv(100):
        pass


@pytest.mark.parametrize("answer", [http_1, greets, hangs_up])
def test_what_answers_and_is_no_ray_is_told_apart(answer: Answer) -> None:
    with server(answer) as address, pytest.raises(ClusterDown, match="must answer") as caught:
        preflight(Resources(), address)
    assert "`ray" in str(caught.value)


def test_a_server_of_grpc_that_is_no_ray_is_told_apart() -> None:
    other = grpc.server(futures.ThreadPoolExecutor(1))
    address = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
    other.start()
    start = time.monotonic()
    with pytest.raises(ClusterDown, match="the server there is not Ray"):
        preflight(Resources(), address)
    assert time.monotonic() - start < 30
    other.stop(None)


def test_what_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER", 0.3)
    with (
        server(says_nothing) as address,
        pytest.raises(ClusterDown, match="no answer within"),
    ):
        preflight(Resources(), address)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no.such.host.invalid:6379", "[::1]:1"])
def test_where_nothing_listens_is_a_line(address: str) -> None:
    with pytest.raises(ClusterDown, match="ray start --head"):
        preflight(Resources(), address)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "nonsense", "http://x", ":", "ray://x:1"])
def test_an_address_that_is_none_is_a_line(address: str) -> None:
    with pytest.raises(ClusterError, match="cluster"):
        preflight(Resources(), address)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError("AF_UNIX path length cannot exceed 107 bytes: /x"), "RAY_TMPDIR to a short one"),
        (PermissionError(errno.EACCES, "Permission denied", "/tmp/ray/x"), "you can write"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/file/ray"), "you can write"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("Failed to start GCS.\n  Last lines:\n..."), "session_latest/logs"),
    ],
)
def test_a_ray_that_does_not_start_says_why(error: Exception, says: str) -> None:
    explained = cluster._explained(error, "local")
    assert isinstance(explained, ClusterDown)
    assert explained.exit_code == 1
    assert says in str(explained)
    assert "\n" not in str(explained)


def test_what_others_explain_is_left_to_them() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/tmp/ray")
    assert cluster._explained(full, "local") is full
    for words in SLOW_START:  # another try may do
        slow = cluster._explained(Exception(f"The current node {words}."), "local")
        assert isinstance(slow, ConnectionError)
