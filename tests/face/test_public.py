"""`import isoflop`, and the command, in a folder whose files are named like its modules."""

import doctest
import importlib
import os
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from installed import ISOFLOP, shadowed, until_mirrored

import isoflop
from methods.data.load import load
from methods.data.survey import survey
from methods.errors import MethodError, StudyError
from orchestrator.record import contents
from orchestrator.record.evidence import unpacked
from orchestrator.record.log import read_lines
from orchestrator.store import read_stored, read_study

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished sweep whose mirror was killed on the way; and what it printed."""
    folder = shadowed(tmp_path_factory.mktemp("work"))
    command = [str(ISOFLOP), "run", "study.yaml"]
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        os.kill(until_mirrored(process), signal.SIGKILL)
        output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return folder, output


@pytest.mark.ray
def test_files_in_the_working_folder_disturb_no_sweep(finished: tuple[Path, str]) -> None:
    folder, output = finished
    assert "working folder" not in output, output
    assert "Traceback" not in output, output
    events = read_lines(folder / "runs" / "quickstart" / "wal.jsonl")[0]
    ends = {event["trial"]: event["state"] for event in events if event["event"] == "end"}
    assert set(ends.values()) == {"COMPLETE"}
    trials = isoflop.open("quickstart", out=folder / "runs").trials()
    assert set(trials["trial"]) == set(ends), "the mirror that was started again wrote them all"


@pytest.mark.ray
def test_the_command_says_what_it_waits_for(finished: tuple[Path, str]) -> None:
    first, second, *_ = finished[1].splitlines()
    assert first.startswith("Study quickstart on digits")
    assert second == "Starting Ray on this machine"


@pytest.mark.ray
def test_the_data_stand_in_all_that_a_sweep_leaves(finished: tuple[Path, str]) -> None:
    runs = finished[0] / "runs"
    digest = survey(load("digits")).digest
    assert contents.read(runs / "quickstart")[1] == digest
    uri = f"sqlite:///{runs / 'mlflow.db'}"
    assert read_study(uri, "quickstart").data == digest
    files = sorted((runs / "quickstart" / "evidence").glob("*.parquet"))
    assert {unpacked(file.read_bytes()).subject.data for file in files} == {digest.sha256}
    stored = read_stored(uri, "quickstart")
    assert stored.report is not None
    assert stored.report.tags["data_test_sha256"] == digest.splits["test"]
    findings = isoflop.open("quickstart", out=runs).verify()
    assert (findings.checked["data"], findings.flaws, findings.notes) == (2, [], [])


@pytest.mark.ray
def test_results_are_tables(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    for place in (str(folder / "runs" / "quickstart"), folder / "runs" / "quickstart"):
        results = isoflop.open(place)
        assert repr(results) == "Results('quickstart')"
    board = results.board()
    assert list(board[board["method"] == "dense"]["budget_mmac"]) == [0.25, 0.5]
    assert board["mean"].between(0, 1, inclusive="neither").all()
    tables = (board, results.compare(at=[0.25]), results.trials())
    assert all(isinstance(table, pd.DataFrame) and len(table) for table in tables)
    assert "params.gate" in results.trials().columns
    page = results._repr_html_()
    assert "<table" in page
    assert "report.html" in page


@pytest.mark.ray
def test_an_export_is_a_network(finished: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    folder, _ = finished
    results = isoflop.open("quickstart", out=str(folder / "runs"))
    shipped = results.export("skipnet", to=str(tmp_path / "shipped"))
    for place in (shipped, str(shipped)):
        assert isoflop.load(place) is not None


@pytest.mark.ray
@pytest.mark.parametrize("name", ["isoflop.results"])
def test_examples_on_results(name: str, finished: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    module = importlib.import_module(name)
    names = {"RUNS": finished[0] / "runs", "TO": tmp_path / "shipped"}
    outcome = doctest.testmod(module, extraglobs=names)
    assert outcome.attempted > 8
    assert outcome.failed == 0


@pytest.mark.parametrize(
    "name", ["isoflop", "isoflop.shipped", "isoflop.study", "isoflop.training"]
)
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.attempted
    assert outcome.failed == 0


def test_every_public_name_has_an_example() -> None:
    for name in set(isoflop.__all__) - {"METHODS", "IsoflopError", "load"}:
        public = getattr(isoflop, name)
        own = [word for word in vars(public) if not word.startswith(("_", "model_"))]
        members = [getattr(public, word) for word in own]
        functions = [member for member in members if callable(member)]
        assert all(">>>" in (each.__doc__ or "") for each in functions or [public]), name


def test_a_mistake_is_one_sentence() -> None:
    fields = {"name": "mine", "data": "digits", "budgets": [1]}
    with pytest.raises(StudyError, match="did you mean 'methods'"):
        isoflop.Study(**fields, method={"dense": {}})
    with pytest.raises(StudyError, match="did you mean 'quickstart'"):
        isoflop.Study.load("quikstart")
    with pytest.raises(StudyError, match="there is none at"):
        isoflop.Study.load("nowhere.yaml")
    with pytest.raises(MethodError, match="did you mean 'skipnet'"):
        isoflop.train("skipnt", "digits", {})
    with pytest.raises(StudyError, match="store of studies"):
        isoflop.open("quickstart", out="/nowhere")
    with pytest.raises(AttributeError):
        isoflop.nothing  # noqa: B018


def test_a_study_is_the_one_of_its_file() -> None:
    for place in ("quickstart", ROOT / "studies/quickstart.yaml"):
        assert isoflop.Study.load(place).hash == "773464705af9"
