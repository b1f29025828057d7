"""What a study file can no longer ask for: refused before anything runs, and read as it was."""

import json
from pathlib import Path

import pytest
from command import called

from isoflop import Study
from methods.errors import StudyError
from orchestrator.study import file
from orchestrator.study.check import prepare
from orchestrator.study.space import spaces

TEXT = "name: old\ndata: digits\nbudgets: [1]\nmethods: {dense: {}}\nsearch:\n  trials: 4\n  "
WORDS = [
    ("sampler: gp", "`gp` is gone", "write `auto`, or delete `sampler`"),
    ("sampler: nsga2", "`nsga2` is gone", "write `auto`, or delete `sampler`"),
    ("stop: predictive", "`predictive` is gone", "write `none`, or delete `stop`"),
]
COMMANDS = {
    "run": ["run", "{}"],
    "plan": ["plan", "{}"],
    "plan by a rate": ["plan", "{}", "--rate", "1000"],
    "submit": ["submit", "{}", "--dry-run"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("field", WORDS)
def test_it_does_not_run(
    field: tuple[str, str, str],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line, gone, instead = field
    monkeypatch.chdir(tmp_path)
    Path("old.yaml").write_text(TEXT + line + "\n")
    done = called(capsys, *(word.format("old.yaml") for word in COMMANDS[command]))
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    name = line.partition(":")[0]
    assert f"old.yaml:7: search.{name}: {gone}, since it" in done.err
    assert "(docs/search.md)" in done.err
    assert instead in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["old.yaml"]


def test_python_is_told_the_same() -> None:
    what = Study(
        name="old", data="digits", budgets=[1], methods={"dense": {}}, search={"sampler": "gp"}
    )
    with pytest.raises(StudyError, match=r"^search\.sampler: `gp` is gone"):
        what.plan(steps=0)
    with pytest.raises(StudyError, match="`gp` is gone"):
        prepare(what)


def test_it_is_no_choice_any_more(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(TEXT + "sampler: gpp\n")
    with pytest.raises(StudyError, match="must be 'auto', 'ehvi', 'tpe', 'random' or 'sobol'"):
        file.load(tmp_path / "a.yaml")
    schema = json.dumps(file.Study.model_json_schema())
    assert not any(f'"{word}"' in schema for word in ("gp", "nsga2", "predictive"))


@pytest.mark.parametrize(
    ("search", "known_as"),
    [
        ({"sampler": "gp", "trials": 6}, "b16d3e39b942"),
        ({"sampler": "nsga2", "trials": 6}, "5194f941d99a"),
        ({"sampler": "tpe", "trials": 9, "stop": "predictive"}, "c87f841a2f7e"),
    ],
)
def test_a_record_keeps_its_words_and_its_hash(search: dict[str, str], known_as: str) -> None:
    what = file.Study.model_validate(
        {
            "name": "killed",
            "data": "digits",
            "budgets": [0.3, 0.6],
            "recipe": {
                "epochs": 6 if "stop" in search else 4,
                "lr": {"low": 0.001, "high": 1, "log": True},
            },
            "methods": {
                "dense": {"depth": 8, "width": {"low": 0.25, "high": 1.0}},
                "skipnet": {"depth": 8, "width": {"low": 0.25, "high": 0.5}},
            },
            "search": {"stop": "none", **search},
            "confirm": {"seeds": 2},
        }
    )
    assert what.hash == known_as
    assert file.Study.model_validate(json.loads(what.model_dump_json())) == what
    assert list(spaces(what)) == ["dense", "skipnet"]
