"""Lists of studies, what opens one, and a first study of images of one's own."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from command import Called, called
from faults import ROOT
from pictures import square, write_classes
from places import few, small
from stores import held

from orchestrator.record import log
from orchestrator.study.file import load

MAIN = [sys.executable, "-c", "from orchestrator.cli import main; main()"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies in folders and store, and one in the store alone."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "second", "stored"):
        what = small(name)
        held(f"sqlite:///{folder / 'mlflow.db'}", folder, what, few())
        content = {"hash": what.hash, **what.model_dump(mode="json")}
        (folder / name / "study.json").write_text(json.dumps(content))
    log.mark_finished(folder / "second" / "wal.jsonl", small("second").hash)
    shutil.rmtree(folder / "stored")
    return folder


@pytest.fixture(autouse=True)
def isoflop(
    undrawn: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Callable[..., Called]:
    """The command, called in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(called, capsys)


def test_studies_are_listed_with_their_state(isoflop: Callable[..., Called], out: Path) -> None:
    ends = (out / "first" / "wal.jsonl").read_text().count('"event": "end"')
    with (out / "first" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = isoflop("studies", "--out", str(out), "--json")
    rows = {row["study"]: row for row in json.loads(done.out)["studies"]}
    assert [row["state"] for row in rows.values()] == ["running", "finished", "unpublished"]
    assert {row["data"] for name, row in rows.items() if name != "stored"} == {"digits"}
    assert {row["trials"] for row in rows.values()} == {ends}
    assert rows["first"]["verdict"] is None
    assert str(rows["second"]["verdict"]).startswith(time.strftime("%Y-", time.gmtime()))
    text = isoflop("board", "--out", str(out)).out
    assert text == isoflop("studies", "--out", str(out)).out
    assert "interrupted" in text, "its driver is gone"


def test_there_may_be_no_study_and_no_folder(
    isoflop: Callable[..., Called], tmp_path: Path
) -> None:
    nowhere = isoflop("studies", "--out", "nowhere")
    assert (nowhere.code, len(nowhere.err.splitlines())) == (2, 1)
    assert "isoflop run quickstart" in isoflop("studies", "--out", str(tmp_path)).out


def test_a_report_opens_in_the_browser_and_its_path_is_printed(
    isoflop: Callable[..., Called], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path / "opened"}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    done = isoflop("open", "first", "--out", str(out))
    assert done.code == 0, done.err
    report = out / "first" / "report" / "report.html"
    assert done.out.split() == ["Report:", str(report)]
    assert (tmp_path / "opened").read_text().strip() == report.as_uri()


@pytest.mark.slow
def test_mlflow_serves_the_board_until_ctrl_c(out: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*MAIN, "open", "first", "--mlflow", "--out", str(out)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env={**os.environ, "BROWSER": "true %s"},
    )
    try:
        assert process.stdout is not None
        _, page = process.stdout.readline().split()
        assert process.stdout.readline() == "Ctrl-C stops the server.\n"
        server = page.split("/#")[0]
        assert server.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{server}/version", timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"{server}/version", timeout=5)
    finally:
        process.kill()
        process.communicate()


def test_a_folder_of_images_becomes_a_study_that_can_run(
    isoflop: Callable[..., Called], tmp_path: Path
) -> None:
    write_classes(
        tmp_path / "My pets, 2024",
        ["ant", "bee's # 1"],
        per=40,
        make=lambda label, number: square(label, number, 12 + number % 3),
    )
    done = isoflop("init", "My pets, 2024", "--to", "pets.yaml", "--hours", "1")
    assert done.code == 0, done.err
    study = load("pets.yaml")
    assert (study.name, study.data, study.size) == ("my-pets-2024", "./My pets, 2024", 32)
    assert study.confirm.seeds == 5
    text = Path("pets.yaml").read_text()
    assert "80 images of 2 classes: ant, bee's # 1" in text
    planned = isoflop("plan", "pets.yaml", "--steps", "0", "--json")
    assert planned.code == 0, planned.err
    methods = json.loads(planned.out)["methods"]
    assert all(method["fits"][-1] >= 0.5 for method in methods), "each has room at the largest"
    assert all(method["fits"][0] > 0 for method in methods)
    again = isoflop("init", "My pets, 2024", "--to", "pets.yaml")
    assert again.code == 2
    assert "exists" in again.err
    assert Path("pets.yaml").read_text() == text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["init", "nowhere"], "FOLDER must be a folder of images"),
        (["init", "."], "isoflop"),
        (["init", ".", "--to", "study.txt"], "--to must be a YAML file"),
        (["init"], "FOLDER must be given"),
        (["open", "nowhere"], "isoflop run"),
    ],
)
def test_what_cannot_begin_is_one_line(
    isoflop: Callable[..., Called], words: list[str], sentence: str
) -> None:
    done = isoflop(*words)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert sentence in done.err
