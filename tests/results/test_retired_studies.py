"""A record of a study that could no longer run is read like any other."""

import json
from pathlib import Path

import pytest
from boards import undraw
from command import called
from kept import STOPPED, STUDY, Place, made

from orchestrator.live.follow import Follower
from orchestrator.results.boards import stored
from orchestrator.search.replay import curves
from orchestrator.study.file import Study

FIELDS = STUDY.model_dump(mode="json")
OLD = Study.model_validate(
    {**FIELDS, "search": {**FIELDS["search"], "sampler": "gp", "stop": "predictive"}}
)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Place:
    with pytest.MonkeyPatch.context() as changed:
        undraw(changed)
        return made(tmp_path_factory.mktemp("old") / "runs", OLD)


@pytest.mark.parametrize("at_hand", [True, False])
def test_its_board_is_read_from_the_store_and_its_rows_stay(old: Place, at_hand: bool) -> None:
    out = old.out if at_hand else old.out.parent / "elsewhere"
    source = stored("kept", out, uri=old.uri)
    assert source.study.search.sampler == "gp"
    assert source.study.hash == OLD.hash
    stopped = [row for row in source.rows if row.state == "PRUNED"]
    assert [row.reason for row in stopped] == [STOPPED]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["board", "kept"], "dense"),
        (["compare", "kept"], "skipnet"),
        (["studies"], "kept"),
        (["verify", "kept"], "follows from its evidence"),
    ],
)
def test_its_commands_answer(
    old: Place, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = called(capsys, *words, "--out", str(old.out))
    assert (done.code, done.err) == (0, "")
    assert said in done.out


def test_its_file_names_it(old: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.yaml").write_text(OLD.model_dump_json())
    done = called(capsys, "board", str(tmp_path / "kept.yaml"), "--out", str(old.out), "--json")
    assert done.code == 0
    assert json.loads(done.out)


def test_its_log_is_followed(old: Place) -> None:
    follower = Follower(old.out / "kept")
    assert follower.advance()
    assert follower.sweep is not None
    assert follower.sweep.study.search.sampler == "gp"


def test_its_curves_are_a_table(old: Place, tmp_path: Path) -> None:
    curves.write(curves.export(old.out / "kept"), tmp_path / "kept.parquet")
    table = curves.read(tmp_path / "kept.parquet")
    assert table.study.search.stop == "predictive"
    assert "PRUNED" in set(table.rows["state"])
