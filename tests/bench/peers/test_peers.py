"""Peers run on a small table: those that are installed, and what is said of the others."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tables import EPOCHS, synthetic

from orchestrator.search.replay import curves, tournament
from orchestrator.search.replay.simulate import simulate
from tests.bench import peers, races
from tests.bench.peers import PEERS, __main__, python_of, searcher
from tests.bench.peers.one_epoch import OneEpoch, order

TRIALS = 6


@pytest.mark.parametrize("name", list(PEERS))
def test_a_peer_spends_the_epochs_of_its_trials(name: str) -> None:
    python = python_of(name)
    if python is None:
        pytest.skip(f"`python -m tests.bench.peers install {name}` installs it")
    track = tournament.Track.of(synthetic())
    one, peer = {"dense": track.surrogates["dense"]}, searcher(name, python)
    try:
        trace = simulate(track.table, one, peer, workers=2, trials=TRIALS, seed=0)
    finally:
        peer.close()
    run = trace.runs["dense"]
    assert TRIALS * EPOCHS <= run.spent < (TRIALS + 1) * EPOCHS
    assert run.points
    assert run.started > TRIALS


def test_one_epoch_trains_the_best_of_the_first_to_their_end() -> None:
    space = {"x": {"kind": "float", "low": 0.0, "high": 1.0, "log": False, "step": None}}
    baseline = OneEpoch(space, seed=0, trials=2, epochs=4)
    for trial in range(1, 5):
        assert 0 <= baseline.ask(trial)["x"] <= 1
        assert baseline.stop(trial, 1, error=0.1 * trial, macs=1e6 / trial if trial < 4 else 1e6)
    assert [baseline.ask(trial) for trial in range(5, 9)] == [1, 3, 2, 4]
    assert not baseline.stop(5, 2, error=0.05, macs=1e6)


def test_fronts_come_one_after_the_other() -> None:
    figures = {1: (0.3, 1.0), 2: (0.2, 2.0), 3: (0.1, 3.0), 4: (0.3, 3.0), 5: (0.11, 2.9)}
    assert order(figures) == [1, 3, 2, 5, 4]
    assert order({1: (0.1, 1.0), 2: (0.1, 1.0)}) == [1, 2]


def test_races_run_the_peers_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = peers.Peer("broken", "nowhere_at_all:Class")
    monkeypatch.setitem(PEERS, "broken", broken)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    curves.write(synthetic(), tmp_path / "t.parquet")
    listed = ["--peers", "one-epoch,optuna-nsga2,broken,primo", "--environments"]
    kept, page = tmp_path / "kept", tmp_path / "page.md"
    small = ["--searchers=random", "--replicates=2", "--workers=2", "--trials=4", "--keep"]
    words = [tmp_path / "t.parquet", *listed, tmp_path, *small, kept, "--page", page]
    monkeypatch.setattr(sys, "argv", ["races", *map(str, words)])
    races.main()
    said = " ".join(capsys.readouterr().out.split())
    assert "primo is left out: `python -m tests.bench.peers install primo` installs it" in said
    assert "broken is left out: the searcher broken must be installed" in said
    rows = {row.split("`")[1]: row for row in page.read_text().splitlines() if row[:3] == "| `"}
    assert rows.keys() == {"random", "one-epoch", "optuna-nsga2", "perfect"}
    assert "1.00 (1.00 to 1.00)" in rows["random"]
    first = page.read_text()
    assert "python -m tests.bench.races" in first
    assert {file.stem for file in kept.rglob("*.json")} == rows.keys()
    monkeypatch.setattr(tournament, "race", None)  # what is kept is not run again
    monkeypatch.setattr(sys, "argv", [word.replace("broken,", "") for word in sys.argv])
    races.main()
    assert page.read_text().partition("###")[2] == first.partition("###")[2]


def test_what_pip_cannot_install_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = str(tmp_path / "absent-1-py3-none-any.whl")
    monkeypatch.setitem(PEERS, "absent", peers.Peer("absent", "a:B", [absent]))
    environments = SimpleNamespace(create=lambda folder, with_pip: link(folder))
    monkeypatch.setattr(__main__, "venv", environments)
    error = __main__.install("absent", tmp_path / "peers")
    assert error is not None
    assert re.fullmatch(r"absent: pip cannot install it: ERROR: .*absent-1.*", error)
    assert python_of("absent", tmp_path / "peers") is None


def link(folder: Path) -> None:
    """An environment whose interpreter is this one: to make a whole one takes long."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
