"""The tables of the repository: each can be traced, and is good enough to compare searches on."""

import json
from pathlib import Path

import pytest

from methods.data.load import load as load_data
from orchestrator.record.provenance import PACKAGES
from orchestrator.search.replay import curves
from orchestrator.search.replay.searchers import SEARCHERS
from orchestrator.search.replay.simulate import simulate
from orchestrator.search.replay.surrogate import surrogates
from orchestrator.study.file import load
from orchestrator.study.space import spaces
from tests.bench.recorded import Spread, whole_trials

FOLDER = Path(__file__).parents[3] / "studies" / "tables"
TABLES = sorted(FOLDER.glob("*.parquet"))
BY_DIFFICULTY = "sums"
"""The table of images of known difficulty, which must tell the most."""
TRIALS = {"mnist5k": 12}
"""Whole trials per method, at least, of a table whose trials take longer; of others, 20."""
SIX = {"dense", "skipnet", "condensenet", "condconv", "dsnet", "resrep"}


@pytest.fixture(params=TABLES, ids=lambda path: path.stem, scope="module")
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def table(path: Path) -> curves.Table:
    return curves.read(path)


def test_each_table_has_its_study_beside_it() -> None:
    assert {path.stem for path in TABLES} == {path.stem for path in FOLDER.glob("*.yaml")}
    assert {"digits", "mnist5k", BY_DIFFICULTY} <= {path.stem for path in TABLES}


def test_a_table_says_what_it_was_recorded_with(path: Path, table: curves.Table) -> None:
    study, facts = load(path.with_suffix(".yaml")), table.provenance
    assert facts.study_hash == table.study.hash == study.hash
    assert {name: dict(space.free) for name, space in spaces(study).items()} == table.free
    assert facts.commit is not None
    assert len(facts.commit) == 12, "a commit, without files that differ from it"
    assert int(facts.commit, 16) > 0
    assert set(facts.versions) == set(PACKAGES)
    assert facts.data is not None
    assert facts.python is not None
    assert facts.machine is not None
    assert path.stat().st_size < 300_000


def test_a_table_is_of_whole_trials_over_several_seeds(path: Path, table: curves.Table) -> None:
    assert set(table.study.methods) == SIX
    assert len(whole_trials(table.rows)) >= 60
    for method in SIX:
        spread = Spread.of(table.rows[table.rows["method"] == method])
        assert spread.trials >= TRIALS.get(path.stem, 20)
        assert spread.repeated >= spread.configurations / 10


def test_the_trials_of_a_table_are_of_one_length_and_cover_their_ranges(
    table: curves.Table,
) -> None:
    assert table.rows["epochs"].nunique() == 1
    assert len(table.rows) == (table.rows.groupby("trial")["epochs"].first()).sum()
    for method, free in table.free.items():
        rows = table.rows[table.rows["method"] == method]
        params = [json.loads(each) for each in rows["params"].unique()]
        rates = [each["recipe.lr"] for each in params]
        assert free["recipe.lr"].high >= 40 * free["recipe.lr"].low
        assert max(rates) > 10 * min(rates)
        assert rows["final_macs"].max() > 2 * rows["final_macs"].min()


def test_a_surrogate_can_be_fitted_to_each_method(table: curves.Table) -> None:
    for method, surrogate in surrogates(table).items():
        assert surrogate.quality.macs < 0.5, method


def test_the_table_of_known_difficulty_has_images_enough() -> None:
    table = curves.read(FOLDER / f"{BY_DIFFICULTY}.parquet")
    data = load_data(table.study.data)
    assert data.difficulty is not None
    assert table.provenance.data is not None
    assert table.provenance.data.parts["validation"].images >= 2_000


def test_a_search_begins_with_the_defaults_and_without_the_points_of_the_study(
    table: curves.Table,
) -> None:
    one = {"dense": surrogates(table)["dense"]}
    trace = simulate(table, one, SEARCHERS["random"], workers=2, trials=4, seed=0)
    history, space = trace.history, table.space("dense")
    points = table.study.search.points["dense"]
    assert len(points) >= 3
    tried = [dict(history.trial("dense", n).params) for n in range(history.numbers("dense"))]
    assert tried[0] == space.defaults()
    assert not any({**space.defaults(), **point} in tried for point in points)
