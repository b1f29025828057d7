"""Searchers of others: real classes in a process of their own, and what is said of bad ones."""

import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from tables import EPOCHS, synthetic

from methods.errors import SearcherError
from orchestrator.cli import main
from orchestrator.search.replay import curves, tournament
from orchestrator.search.replay.foreign import Foreign, described, within
from orchestrator.search.replay.simulate import Trace, simulate

PAGE = Path(__file__).parents[3] / "docs" / "search.md"
TRACK = tournament.Track.of(synthetic())
METHODS = ["dense", "condconv"]
BLOCK = re.compile(r"(?ms)^```python\n(.*?)^```$")
FROM_THE_PAGE = "from page import Mine\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (source,) = (text for text in BLOCK.findall(PAGE.read_text()) if "class Mine" in text)
    (tmp_path / "page.py").write_text(source)
    return tmp_path


def foreign(folder: Path, source: str, patience: float = 60) -> Foreign:
    """The class `Own` of a module with this source, beside the class of the page."""
    (folder / "own.py").write_text(FROM_THE_PAGE + source)
    return Foreign("own", "own:Own", folder=folder, patience=patience)


def searched(searcher: Foreign, *, workers: int = 2, trials: int = 6, seed: int = 0) -> Trace:
    try:
        return simulate(
            TRACK.table, TRACK.surrogates, searcher, workers=workers, trials=trials, seed=seed
        )
    finally:
        searcher.close()


def refused(folder: Path, source: str, patience: float = 60) -> str:
    """What is said of a searcher with this source, in one line."""
    searcher = foreign(folder, source, patience)
    with pytest.raises(SearcherError) as caught:
        searched(searcher)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def curves_of(trace: Trace, method: str) -> dict[str, Mapping[str, Any]]:
    records = trace.history.records
    return {n: r.start.params for n, r in records.items() if r.start.method == method}


def test_the_class_of_the_page_runs_as_a_searcher(folder: Path) -> None:
    searcher = Foreign("mine", "page:Mine", folder=folder)
    trace = searched(searcher)
    assert [run.started for run in trace.runs.values()] == [6, 6]
    again = searched(searcher)
    assert curves_of(trace, "dense") == curves_of(again, "dense")
    assert curves_of(trace, "dense") != curves_of(searched(searcher, seed=1), "dense")
    for method in METHODS:
        space = TRACK.table.space(method)
        first, *others = curves_of(trace, method).values()
        assert first == space.params(space.defaults())
        assert all(space.holds({n: params[n] for n in space.free}) for params in others)


def test_the_command_of_the_page_compares_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "studies" / "tables").mkdir(parents=True)
    curves.write(synthetic(), folder / "studies" / "tables" / "sums.parquet")
    (line,) = re.findall(r"(?m)^isoflop (simulate .*mine:Mine.*)$", PAGE.read_text())
    Path("page.py").rename("mine.py")
    with pytest.raises(SystemExit, match="0"):
        main([*line.replace("random,", "sobol,").split(), "--trials", "4", "--replicates", "1"])
    assert "mine:Mine: 8 trials per search" in capsys.readouterr().out


NOTES = """
import json, pathlib

class Own(Mine):
    def __init__(self, space, seed, trials, epochs):
        super().__init__(space, seed, trials, epochs)
        self.lines = [["opened", space, seed, trials, epochs]]
    def ask(self, trial):
        print("a line on standard output is no answer")
        params = super().ask(trial)
        self.note("asked", trial, params)
        return params
    def tell(self, trial, params, epochs, error, macs):
        self.note("told", trial, params, epochs, error, macs)
    def note(self, *line):
        self.lines.append(line)
        name = f"notes-{len(self.space)}.json"
        pathlib.Path(__file__).with_name(name).write_text(json.dumps(self.lines))
"""


def test_a_searcher_hears_of_every_end_in_order(folder: Path) -> None:
    trace = searched(foreign(folder, NOTES), workers=1)
    space = TRACK.table.space("dense")
    notes = json.loads((folder / f"notes-{len(space.free)}.json").read_text())
    _, given, _, trials, epochs = notes[0]
    assert (trials, epochs) == (6, EPOCHS)
    assert given["width"] == {
        "kind": "float",
        "low": 0.25,
        "high": 1.0,
        "step": 0.125,
        "log": False,
        "default": space.defaults()["width"],
    }
    told = [note for note in notes if note[0] == "told"]
    assert [note[1] for note in told] == list(range(len(told)))
    asked = [note[1] for note in notes if note[0] == "asked"]
    assert asked == list(range(1, 6))
    records = trace.history.records
    for _, number, params, ran, error, macs in told:
        record = records[f"dense-{number:05d}"]
        assert params == {name: record.start.params[name] for name in params}
        assert ran == EPOCHS
        assert error == pytest.approx(1 - record.curve[-1].metrics.val_acc)
        assert macs == pytest.approx(1e6 * record.curve[-1].metrics.macs_mean_m)


def test_what_takes_no_worker_has_no_error(folder: Path) -> None:
    """All beyond the smallest widths is over a budget of so few MACs."""
    study = TRACK.table.study.model_copy(update={"budgets": (0.05, 0.1)})
    table = curves.Table(
        TRACK.table.rows, study, TRACK.table.free, TRACK.table.fixed, TRACK.table.provenance
    )
    one = {"dense": TRACK.surrogates["dense"]}
    searcher = foreign(folder, NOTES)
    try:
        simulate(table, one, searcher, workers=1, trials=2, seed=0)
    finally:
        searcher.close()
    notes = json.loads((folder / f"notes-{len(table.space('dense').free)}.json").read_text())
    over = [note for note in notes if note[0] == "told" and note[3] == 0]
    assert over
    assert all(error is None and macs > 1e5 for *_, error, macs in over)


STOPS = """
class Own(Mine):
    def ask(self, trial):
        self.stopped = getattr(self, "stopped", [])
        return self.stopped.pop() if len(self.stopped) == 2 else super().ask(trial)
    def tell(self, trial, params, epochs, error, macs):
        if trial and epochs == 2:
            self.stopped.append(trial)
    def stop(self, trial, epochs, error, macs):
        assert 0 < error < 1 and macs > 0
        return epochs == 2
"""


def test_a_stopped_trial_is_continued_on_its_own_curve(folder: Path) -> None:
    trace = searched(foreign(folder, STOPS), workers=1, trials=5)
    records = trace.history.records
    for method, run in trace.runs.items():
        own = [r for r in records.values() if r.start.method == method]
        stopped = {r.start.config: r for r in own if r.end and r.end.state == "PRUNED"}
        later = [r for r in own if r.start.config != r.start.trial]
        assert later
        for record in later:
            first = stopped[record.start.config]
            assert record.start.params == first.start.params
            assert [epoch.step for epoch in first.curve] == [1, 2]
            assert [epoch.step for epoch in record.curve] == list(range(3, EPOCHS + 1))
            assert record.end is not None
            assert record.end.state == "COMPLETE"
        assert run.spent == sum(len(r.curve) for r in own)
        assert run.started == len(own) - len(later)
        assert 5 * EPOCHS <= run.spent < 6 * EPOCHS
        assert trace.history.effort(method) == run.spent


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Other: pass", "must be a class, but own defines no Own; its classes: Mine, Other"),
        ("Own = 3", "must be a class, but is a int"),
        ("Own = print", "must be a class, but is a builtin_function_or_method"),
        ("class Own:\n  def ask(self, trial): pass", "must have a method `tell`, but has none"),
        ("raise OSError('no such thing')", "own.py:2 raised OSError: no such thing"),
        ("import nowhere_to_be_found", "must be importable, but own.py:2 raised ModuleNotFound"),
        ("import os; os._exit(3)", "must not end by itself, but did in load, with exit code 3"),
        ("def Own(", "must be importable, but raised SyntaxError"),
        ("class Own(Mine):\n  def __init__(self): pass", "in open for .* raised TypeError"),
        ("class Own(Mine):\n  def ask(self, trial): raise ValueError('a\\nb')", "ValueError: a b$"),
        ("class Own(Mine):\n  def ask(self, trial): raise SystemExit", "raised SystemExit$"),
        ("class Own(Mine):\n  def tell(self, **_): raise KeyError('x')", "in tell for .* KeyError"),
        ("class Own(Mine):\n  def stop(self, **_): return 1 / 0", "in stop for .* ZeroDivision"),
        ("class Own(Mine):\n  def ask(self, trial): return None", "a dict of parameters.* None"),
        ("class Own(Mine):\n  def ask(self, trial): return {'a': print}", "numbers, texts and boo"),
        ("class Own(Mine):\n  def ask(self, trial): return 0", "but continues trial 0"),
        ("class Own(Mine):\n  def ask(self, trial): return {}", "every field, but left out width"),
        (
            "class Own(Mine):\n  def ask(self, trial): return {**super().ask(trial), 'widht': 1}",
            "has no field 'widht' to propose; did you mean 'width'",
        ),
        (
            "class Own(Mine):\n  def ask(self, trial): return {**super().ask(trial), 'width': 7}",
            r"must propose width as a number from 0.25 to 1, but proposed 7 \((dense|condconv)\)",
        ),
        (
            "class Own(Mine):\n"
            "  def ask(self, trial): return {**super().ask(trial), 'width': float('nan')}",
            "must propose width as a number from 0.25 to 1, but proposed nan",
        ),
        (
            "class Own(Mine):\n"
            "  def ask(self, trial):\n"
            "    return {n: 3 if n == 'experts' else v for n, v in super().ask(trial).items()}",
            r"must propose experts as one of 2, 4, but proposed 3 \(condconv\)",
        ),
        (
            "import os, signal\nclass Own(Mine):\n"
            "  def ask(self, trial): os.kill(os.getpid(), signal.SIGSEGV)",
            "must not end by itself, but did in ask for .*, by signal 11",
        ),
    ],
)
def test_a_bad_searcher_is_refused_in_one_line(folder: Path, source: str, said: str) -> None:
    message = refused(folder, source)
    assert "own" in message
    assert re.search(said, message), message


@pytest.mark.parametrize(
    "source",
    [
        "import time; time.sleep(600)",
        "import signal, time\n"
        "class Own(Mine):\n"
        "  def ask(self, trial):\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 30))\n"
        "    while True: pass",
    ],
    ids=["at import", "in a loop that takes no signal"],
)
def test_one_that_hangs_is_ended(folder: Path, source: str) -> None:
    assert "must answer within 1 seconds, but did not in" in refused(folder, source, patience=1)


def test_what_a_searcher_started_ends_with_it(folder: Path) -> None:
    source = (
        "import pathlib, subprocess\nclass Own(Mine):\n  def ask(self, trial):\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        "    pathlib.Path(__file__).with_name('child').write_text(str(child.pid))\n"
        "    child.wait()"
    )
    assert "must answer within 2 seconds" in refused(folder, source, patience=2)
    child = Path("/proc") / (folder / "child").read_text() / "stat"
    for _ in range(200):
        if not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the searcher's child still runs")


def test_a_place_or_an_interpreter_that_is_not_there(folder: Path) -> None:
    with pytest.raises(SearcherError, match=r"lie in .*, but no module is called 'nothing_here'"):
        searched(Foreign("x", "nothing_here.at_all:Own", folder=folder))
    with pytest.raises(SearcherError, match="nowhere/python cannot be started: No such file"):
        searched(Foreign("x", "page:Mine", python="nowhere/python", folder=folder))


def test_the_others_go_on_after_a_bad_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    curves.write(synthetic(), folder / "curves.parquet")
    foreign(folder, "class Own(Mine):\n  def ask(self, trial): raise ValueError('never')")
    small = ["--trials", "3", "--replicates", "2", "--workers", "2"]
    listed = f"own:Own,good={sys.executable}:page:Mine,nothing:Own,sobol"
    with pytest.raises(SystemExit, match="0"):
        main(["simulate", "curves.parquet", "--searcher", listed, *small])
    out, err = capsys.readouterr()
    assert len(err.strip().splitlines()) == 2
    assert "own:Own" in err
    assert re.search(r"(?m)^ good +0", out)
    assert re.search(r"(?m)^ sobol +0", out)
    with pytest.raises(SystemExit, match="2"):
        main(["simulate", "curves.parquet", "--searcher", "own:Own", *small])
    assert "raised ValueError: never" in capsys.readouterr().err


def test_how_one_is_written() -> None:
    assert Foreign.written("tpe") is None
    assert Foreign.written("a.b:") is None
    plain = Foreign.written("a.b:C")
    assert plain is not None
    assert (plain.name, plain.place, plain.python) == ("a.b:C", "a.b:C", sys.executable)
    full = Foreign.written("mine=/x/bin/python:a:C", patience=3)
    assert full is not None
    assert (full.name, full.place, full.python, full.patience) == (
        "mine",
        "a:C",
        "/x/bin/python",
        3,
    )


@given(st.floats(-1, 12), st.integers(-1, 12))
def test_numbers_are_rounded_to_steps_and_never_leave(number: float, whole: int) -> None:
    stepped, integer = FloatDistribution(0.5, 10, step=0.5), IntDistribution(1, 9, step=2)
    for values in (stepped, integer, FloatDistribution(0.5, 10), IntDistribution(1, 9, log=True)):
        for value in (number, whole):
            inside = within(value, values)
            assert (inside is not None) == (values.low <= value <= values.high)
            if inside is not None:
                assert values._contains(values.to_internal_repr(inside))
                step = values.step or 0
                assert abs(float(inside) - value) <= step / 2 + 1e-9


def test_choices_keep_their_kinds() -> None:
    values = CategoricalDistribution([True, "a", 0.5, 2])
    assert described(values) == {"kind": "choice", "choices": [True, "a", 0.5, 2]}
    assert [within(each, values) for each in (True, 1, "a", 2.0, [1])] == [True, None, "a", 2, None]
