"""`import isoflop`, and what the command leaves in a folder of files named like its modules."""

import doctest
import importlib
import re
from pathlib import Path

import pandas as pd
import pytest
from faults import Sweep

import isoflop
from methods.data.load import load
from methods.data.survey import survey
from methods.errors import MethodError, StudyError
from orchestrator.record import contents
from orchestrator.record.evidence import unpacked
from orchestrator.store import read_stored, read_study

ROOT = Path(__file__).parents[2]


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_files_in_the_working_folder_disturb_no_sweep(drilled: Sweep) -> None:
    printed = drilled.printed()
    assert "working folder" not in printed, printed
    assert "Traceback" not in printed, printed
    ends = {event["trial"]: event["state"] for event in drilled.events() if event["event"] == "end"}
    assert set(ends.values()) == {"COMPLETE"}
    trials = isoflop.open("quickstart", out=drilled.out).trials()
    assert set(trials["trial"]) == set(ends), "the mirror that was started again wrote them all"


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_command_says_what_it_waits_for(drilled: Sweep) -> None:
    first, *then = drilled.printed().splitlines()
    assert first.startswith("Study quickstart on digits")
    assert then[:3] == [
        "Loading PyTorch, Ray and MLflow",
        "Reading the data",
        "Starting Ray on this machine",
    ]
    last = [line for line in then if line.startswith(("Measuring", "Writing", "Drawing"))]
    assert re.sub(r"\d+ pairs?", "N pairs", last[-4]) == "Measuring latency, N pairs"
    assert last[-3:] == ["Writing to MLflow", "Drawing the report", "Writing the board to MLflow"]


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_data_stand_in_all_that_a_sweep_leaves(drilled: Sweep) -> None:
    digest = survey(load("digits")).digest
    assert contents.read(drilled.folder)[1] == digest
    uri = f"sqlite:///{drilled.out / 'mlflow.db'}"
    assert read_study(uri, "quickstart").data == digest
    files = sorted((drilled.folder / "evidence").glob("*.parquet"))
    assert {unpacked(file.read_bytes()).subject.data for file in files} == {digest.sha256}
    stored = read_stored(uri, "quickstart")
    assert stored.report is not None
    assert stored.report.tags["data_test_sha256"] == digest.splits["test"]
    findings = isoflop.open("quickstart", out=drilled.out).verify()
    assert (findings.checked["data"], findings.flaws, findings.notes) == (2, [], [])


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_a_board_from_the_store_has_the_bytes_of_the_sweeps_own(drilled: Sweep) -> None:
    stored = read_stored(f"sqlite:///{drilled.out / 'mlflow.db'}", "quickstart")
    page = isoflop.open("quickstart", out=drilled.out).outcome(refresh=True).report
    again = {file.name: file.read_bytes() for file in page.parent.iterdir()}
    assert again.keys() == stored.files.keys()
    assert [name for name in again if again[name] != stored.files[name]] == []
    assert b"Learning curves" in again["report.html"]
    assert b"Latency" in again["report.html"]


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_results_are_tables(drilled: Sweep) -> None:
    for place in (str(drilled.folder), drilled.folder):
        results = isoflop.open(place)
        assert repr(results) == "Results('quickstart')"
    board = results.board()
    assert list(board[board["method"] == "dense"]["budget_mmac"]) == [0.1, 0.3]
    assert board["mean"].between(0, 1, inclusive="neither").all()
    tables = (board, results.compare(at=[0.1]), results.trials())
    assert all(isinstance(table, pd.DataFrame) and len(table) for table in tables)
    assert "params.gate" in results.trials().columns
    page = results._repr_html_()
    assert "<table" in page
    assert "report.html" in page


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_an_export_is_a_network(drilled: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    results = isoflop.open("quickstart", out=str(drilled.out))
    shipped = results.export("skipnet", to=str(tmp_path / "shipped"))
    for place in (shipped, str(shipped)):
        assert isoflop.load(place) is not None


@pytest.mark.ray
@pytest.mark.parametrize("name", ["isoflop.results"])
@pytest.mark.timeout(900)
def test_examples_on_results(name: str, drilled: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    module = importlib.import_module(name)
    names = {"RUNS": drilled.out, "TO": tmp_path / "shipped"}
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
        assert isoflop.Study.load(place).hash == "fe56e6a51af8"
