"""A server behind a password: it is used, files included, and no text repeats the password."""

import base64
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from boards import study_rows
from stores import Server, held, study

from methods.errors import StorageError
from orchestrator import store
from orchestrator.cli import main

PASSWORD = "s3cret@word"
WRONG = "wr0ng@word"


class Gate(http.server.BaseHTTPRequestHandler):
    """Hands requests with the right password on to `target`."""

    protocol_version = "HTTP/1.1"
    target = ""

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        right = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {right}":
            self._answer(401, b"who are you?")
            return
        names = ("Content-Type", "Accept")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        request = urllib.request.Request(
            self.target + self.path, body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self._answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002
        """Says nothing."""

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def guarded(shared_server: Server) -> Iterator[str]:
    """Host and port of a server of MLflow's behind a password."""
    handler = type("Handler", (Gate,), {"target": shared_server.uri})
    gate = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=gate.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{gate.server_port}"
    gate.shutdown()
    gate.server_close()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_password_in_the_url_opens_the_server_and_is_never_repeated(
    tmp_path: Path,
    guarded: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out, what = tmp_path / "runs", study("hidden", budgets=[2.0], methods={"dense": {}})
    uri = f"http://ann:{PASSWORD}@{guarded}"
    store.check(uri)
    store.claim(uri, "hidden", what.hash)
    held(uri, out, what, study_rows(seeds=1, methods=("dense",), budgets=(2.0,)))
    again = {
        "event": "start",
        **json.loads((out / "hidden" / "wal.jsonl").read_text().split("\n")[1]),
    }
    again |= {"params": {"depth": 99}, "attempt": 2}  # which MLflow refuses: a new value
    with (out / "hidden" / "wal.jsonl").open("a") as log:
        log.write(json.dumps({**again, "trial": "dense-77777"}) + "\n")
        log.write(json.dumps({**again, "trial": "dense-77777", "params": {"depth": 98}}) + "\n")
    store.project(out / "hidden" / "wal.jsonl", uri, "hidden")
    assert (out / "hidden" / "mlflow-refused.jsonl").exists()
    with pytest.raises(SystemExit) as ended:
        main(["board", "hidden", "--out", str(out), "--mlflow", uri])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert f"http://{guarded}/#/experiments" in printed
    for words in (["board", "other"], ["verify", "hidden"], ["export", "hidden/dense"]):
        with pytest.raises(SystemExit):
            main([*words, "--out", str(out), "--mlflow", uri])
    with pytest.raises(SystemExit):
        main(["board", "hidden", "--mlflow", f"http://ann:{WRONG}@{guarded}"])
    with pytest.raises(StorageError) as caught:
        store.check(f"http://ann:{WRONG}@{guarded}")
    projector = store.Projector(
        out / "hidden" / "wal.jsonl", f"http://ann:{WRONG}@{guarded}", "hidden"
    )
    projector.start()
    deadline = time.monotonic() + 150
    while "did not accept a write" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.1)
    projector.stop()
    assert "did not accept a write" in caplog.text
    texts = [printed, *capsys.readouterr(), caplog.text, str(caught.value)]
    for text in texts:
        assert not leaks(text.encode())
    assert not [file for file in out.rglob("*") if file.is_file() and leaks(file.read_bytes())]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("API request to endpoint /x failed with error code 401 != 200. Response", "a password"),
        ("403 Client Error: FORBIDDEN for url: http://host/artifacts", "may not do that"),
        ("failed with error code 403 != 200. Response body: 'Invalid Host header'", "Invalid Host"),
        ("connection to port 403 failed", "connection to port 403 failed"),
    ],
)
def test_a_refusal_is_told_in_one_sentence(words: str, sentence: str) -> None:
    from mlflow.exceptions import MlflowException

    from orchestrator.store.reading.failures import REFUSALS, reason

    text = reason(MlflowException(words), "http://host:5000")
    assert sentence in text
    assert (text in REFUSALS.values()) == (sentence in ("a password", "may not do that"))


def leaks(content: bytes) -> bool:
    return any(part in content for part in (b"s3cret", b"wr0ng", b"@word", b"%40word"))
