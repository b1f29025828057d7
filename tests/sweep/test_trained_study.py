"""Studies whose trials start from trained weights: a real sweep, and what is refused before it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import Sweep
from safetensors.torch import load_file, save_file

from methods import METHODS, outside
from methods.api import Task
from methods.errors import IsoflopError, StorageError, StudyError
from orchestrator.record.depot import Folder
from orchestrator.record.provenance import decode_provenance, encode_provenance
from orchestrator.results.verify import verify
from orchestrator.study.file import Study, load
from orchestrator.sweep.ready import Place, ready
from orchestrator.trial.start import kept

TASK = Task("digits", 1, 8, 8, 10)
FILE = """
name: begun
data: digits
budgets: [1]
recipe: {epochs: 2, batch_size: 64}
methods:
  dense: {depth: 8, width: 0.25}
  resrep: {depth: 8, width: 0.5}
  skipnet: {depth: 8, width: 0.5, policy_share: {low: 0.4, high: 0.6}}
start: {resrep: base, skipnet: weights/resnet.safetensors}
base: {epochs: 4}
search: {trials: 3}
confirm: {seeds: 1}
"""


def write(path: Path, depth: int = 8, seed: int = 0, classes: int = 10) -> Path:
    """A plain ResNet's weights as someone else would leave them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    task = Task("theirs", 1, 8, 8, classes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = METHODS["dense"].of({"depth": depth, "width": 0.5}).build(task)
    save_file(net.backbone.state_dict(), path)
    return path


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Study:
    """The study in a folder, with its file of weights."""
    monkeypatch.setattr(outside, "FOLDERS", [])
    write(folder / "weights" / "resnet.safetensors")
    (folder / "study.yaml").write_text(FILE)
    study = load(folder / "study.yaml")
    content = study.model_dump(mode="json")
    return Study.model_validate({**content, **changes}) if changes else study


def test_a_sweep_from_a_file_and_a_base_survives_its_driver(tmp_path: Path) -> None:
    weights = write(tmp_path / "weights" / "resnet.safetensors", classes=7)
    sweep = Sweep(tmp_path, FILE)
    try:
        sweep.start()
        sweep.until("epoch")
        sweep.kill()
        weights.unlink()  # it is kept with the study
        sweep.start()
        assert sweep.wait() == 0, sweep.printed()[-3000:]
    finally:
        sweep.close()
    printed = sweep.printed()
    assert "skipnet starts from weights/resnet.safetensors: " in printed
    assert "as initialised remain head.weight, head.bias" in " ".join(printed.split())
    rows = sweep.rows()
    assert {row.role for row in rows} == {"base", "search", "confirm"}
    assert {row.state for row in rows} == {"COMPLETE"}
    (base,) = (row for row in rows if row.role == "base")
    assert (base.serves, base.epochs, base.test_acc) == (("resrep",), 4, None)
    assert sum(row.role == "search" and row.method == "resrep" for row in rows) == 1  # 6 - 4 epochs
    assert {row.point for row in rows if row.method == "resrep"} == {""}  # it prunes at once
    starts = [event for event in sweep.events() if event["event"] == "start"]
    firsts = {event["trial"]: number for number, event in reversed(list(enumerate(starts)))}
    assert firsts["base-00000"] < firsts["resrep-00000"]
    (noted,) = {
        json.dumps(event["provenance"]["starts"], sort_keys=True)
        for event in sweep.events()
        if event["event"] == "study"
    }
    skipnet = json.loads(noted)["skipnet"]
    assert skipnet["left"] == ["head.weight", "head.bias"]
    kept_file = sweep.folder / "starts" / f"{skipnet['sha256'][:16]}.pt"
    assert kept(Folder(kept_file.parent), kept_file.name, TASK).sha256 == skipnet["sha256"]
    confirmed = next(row.trial for row in rows if row.role == "confirm" and row.method == "resrep")
    assert (sweep.folder / "trials" / confirmed / "last.pt").exists()
    findings = verify("begun", sweep.out)
    assert not findings.flaws, findings.flaws
    assert findings.checked["methods: trained weights"] == 1
    report = (sweep.folder / "report" / "report.html").read_text()
    assert "Base epochs" in report
    assert "weights/resnet.safetensors" in report
    effort = json.loads((sweep.folder / "report" / "provenance.json").read_text())["board"][
        "effort"
    ]
    assert {each["method"]: each.get("base") for each in effort} == {
        "dense": None,
        "resrep": 4,
        "skipnet": None,
    }


def test_a_start_is_part_of_what_a_study_is() -> None:
    content = {"name": "s", "data": "digits", "budgets": [1], "methods": {"dense": {}}}
    plain = Study.model_validate(content)
    assert plain.hash == Study.model_validate({**content, "start": {}, "base": {}}).hash
    begun = Study.model_validate({**content, "start": {"dense": "base"}})
    assert begun.hash != plain.hash
    longer = {**content, "start": {"dense": "base"}, "base": {"epochs": 9}}
    assert begun.hash != Study.model_validate(longer).hash


def test_what_a_method_starts_from_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.record.provenance import provenance

    study = prepared(tmp_path, monkeypatch)
    checked = ready(study, Place(out=tmp_path / "runs"))
    origins = {name: origin for name, (origin, _) in checked.starts.items()}
    assert origins["resrep"].name == "base"
    assert len(origins["skipnet"].sha256) == 64
    facts = provenance(study, TASK, 10, starts=origins)
    assert decode_provenance(json.loads(json.dumps(encode_provenance(facts)))).starts == origins
    assert "starts" not in encode_provenance(provenance(study, TASK, 10))


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def deeper(path: Path) -> None:
    write(path, depth=14)


def infinite(path: Path) -> None:
    tensors = load_file(path)
    tensors["stem.0.weight"][0] = torch.inf
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)


def no_weights(path: Path) -> None:
    path.write_text("no weights")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (torn, "must be a whole .safetensors file"),
        (no_weights, "must be a whole .safetensors file"),
        (empty, "must be a whole .safetensors file"),
        (Path.unlink, "there is none at weights/resnet.safetensors"),
        (deeper, "must have the architecture"),
        (infinite, "must be finite"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_before_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, words: str
) -> None:
    study = prepared(tmp_path, monkeypatch)
    change(tmp_path / "weights" / "resnet.safetensors")
    with pytest.raises(IsoflopError, match=words) as refused:
        ready(study, Place(out=tmp_path / "runs"))
    assert refused.value.exit_code == 2
    assert "study.yaml:10: " in str(refused.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"methods": {"skipnet": {"width": 0.5, "depth": {"choices": [8, 14]}}}},
            "must fit every network of skipnet, but not that with depth 14",
        ),
        (
            {
                "methods": {"resrep": {"depth": 8, "width": {"low": 0.25, "high": 0.5}}},
                "start": {"resrep": "base"},
            },
            "one network for all trials of resrep, but that with width 0.25 has another",
        ),
        (
            {"methods": {"dsnet": {}}, "start": {"dsnet": "base"}},
            "dsnet has none as it is configured",
        ),
        ({"base": {"epochs": 6}}, "must leave its search epochs, but takes 6 of 6"),
        ({"start": {"skipnet": "trial:other/dense-00000-seed1"}}, "there are none at"),
    ],
)
def test_a_start_that_cannot_serve_the_study_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    fields = {"start": {"skipnet": "weights/resnet.safetensors"}, "base": {}}
    fields = {} if "epochs" in changes.get("base", {}) else fields
    study = prepared(tmp_path, monkeypatch, **{**fields, **changes})
    with pytest.raises(IsoflopError, match=words) as refused:
        ready(study, Place(out=tmp_path / "runs"))
    assert refused.value.exit_code == 2


def test_other_weights_under_the_same_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.sweep import starts

    study = prepared(tmp_path, monkeypatch)
    place = Place(out=tmp_path / "runs")
    first = ready(study, place)
    starts.keep(first.folder, first.starts)
    assert ready(study, place).starts["skipnet"][0] == first.starts["skipnet"][0]
    write(tmp_path / "weights" / "resnet.safetensors", seed=1)
    with pytest.raises(StudyError, match="must be those that it began with"):
        ready(study, place)
    (tmp_path / "weights" / "resnet.safetensors").unlink()
    assert ready(study, place).starts["skipnet"][0] == first.starts["skipnet"][0]
    next((first.folder / "starts").glob("*.pt")).write_bytes(b"torn")
    with pytest.raises(StorageError, match="cannot be read"):
        ready(study, place)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"nothing": "base"}, "must be a method of this study"),
        ({"dense-again": "base"}, "must be a method of this study"),
        ({"dense": "timm:"}, "the name of a model"),
        ({"dense": "timm:../x"}, "the name of a model"),
        ({"dense": "trial:dense-00003"}, "trial:STUDY/TRIAL"),
        ({"dense": " "}, "must name trained weights"),
        ({"dense": 3}, "must be text"),
        ("base", "field: value"),
    ],
)
def test_a_start_must_be_written_as_one(tmp_path: Path, start: Any, words: str) -> None:
    methods = {"dense": {}, "dense-again": {"method": "dense"}}
    content = {"name": "s", "data": "digits", "budgets": [1], "methods": methods, "start": start}
    file = tmp_path / "study.yaml"
    file.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=words):
        load(file)


def test_a_start_among_a_methods_fields_says_where_it_belongs(tmp_path: Path) -> None:
    from orchestrator.study.space import spaces

    content = {"name": "s", "data": "digits", "budgets": [1]}
    study = Study.model_validate({**content, "methods": {"skipnet": {"start": "x"}}})
    with pytest.raises(StudyError, match=re.escape("write `start: {skipnet: ...}`")):
        spaces(study)
