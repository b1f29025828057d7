"""What `run` refuses, `plan` refuses in the same words, and neither leaves a file."""

import sys
from pathlib import Path

import pytest
import torch

from orchestrator.cli import main

STUDY = """\
name: tiny
data: digits
budgets: [0.5]
recipe: {epochs: 2, batch_size: 32}
methods: {dense: {depth: 8, width: {choices: [0.25, 0.5]}}}
search: {trials: 2, sampler: random}
confirm: {seeds: 1}
"""


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert len(printed.splitlines()) == 1
    return printed


@pytest.mark.parametrize(
    ("more", "options", "sentence"),
    [
        (
            "resources: {cpu: 5000}",
            "",
            "study.yaml:8: a trial must fit one node, but it asks",
        ),
        ("resources: {gpu: 64}", "", "the 64 workers of a trial must fit"),
        ("search: {from: nowhere}", "", "study.yaml:7: search.from"),
        ("recipe: {batch_size: 5000}", "", "study.yaml:2: a batch must not exceed"),
        ("", "--optuna nonsense", "database or a server must be a URL"),
        ("", "--optuna nosuch://host/name", "nosuch"),
        ("", "--optuna sqlite://", "the path of a file"),
        ("", "--optuna postgresql+psycopg://u:secret@127.0.0.1:9/x", "Optuna's database"),
        ("", "--mlflow ftp://host", "MLflow"),
        ("", "--mlflow http://127.0.0.1:9", "MLflow"),
        ("", "--out study.yaml", "--out must be a folder"),
        ("", f"--out {'a' * 300}", "cannot be: File name too long"),
        ("data: nowhere", "", "study.yaml:7: data must be a known name"),
        ("budgets: [0.0001]", "", "a budget must hold at least one configuration"),
    ],
)
def test_plan_refuses_what_run_refuses(  # noqa: PLR0917
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: str,
    options: str,
    sentence: str,
) -> None:
    if "gpu" in more and torch.cuda.device_count() >= 64:
        pytest.skip("this machine has the GPUs")
    monkeypatch.chdir(tmp_path)
    field = more.partition(":")[0]
    kept = [line for line in STUDY.splitlines() if not field or not line.startswith(field)]
    Path("study.yaml").write_text("\n".join([*kept, more]))
    planned = refusal(["plan", "study.yaml", "--steps", "0", *options.split()], capsys)
    assert sentence in planned
    assert "secret" not in planned
    assert refusal(["run", "study.yaml", *options.split()], capsys) == planned
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()
