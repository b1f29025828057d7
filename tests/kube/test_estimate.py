"""Hours and cost in `submit --dry-run`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orchestrator.search.plan import plan
from orchestrator.study.file import load
from orchestrator.study.sections import Resources

Call = Callable[..., int]


def on_gpus(cluster: str, extra: str = "") -> None:
    """Let the cluster file have 4 GPUs, of which a trial takes half a one."""
    text = Path(cluster).read_text().replace("memory: 4Gi}", "memory: 4Gi, gpu: 2}")
    Path(cluster).write_text(f"{text}trial: {{gpu: 0.5}}\n{extra}")


def test_a_dry_run_says_how_long_it_takes_and_what_that_costs(
    isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    on_gpus(files[1], "keep_minutes: 30\n")
    words = ("submit", files[0], "--dry-run", "--rate", "2", "--price", "3")
    printed = []
    for _ in range(2):
        assert isoflop(*words) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert [o["kind"] for o in yaml.safe_load_all(printed[0])] == ["ConfigMap", "RayJob"]
    at_once = Resources(cpu=1, gpu=0.5, concurrency=4)
    study = load(Path(files[0])).model_copy(update={"resources": at_once})
    (hours,) = plan(study, rate=2, gpus=(4,)).hours
    assert hours.hours is not None
    lines = [line for line in printed[0].splitlines() if line.startswith("#")]
    assert (
        f"# Runs about {hours.hours:.3g} h, as `isoflop plan --rate 2` estimates, on 4 GPUs, of "
        f"which trials use {hours.busy:g} at most."
    ) in lines
    (cost,) = [line for line in lines if line.startswith("# Costs about ")]
    assert cost.startswith(f"# Costs about {3 * 4 * (hours.hours + 0.5):,.2f} for GPUs at 3 per ")
    assert "until the workers are deleted" in cost
    assert not any("hours:" in line for line in lines)


def test_a_dry_run_says_that_the_limit_of_hours_comes_first(
    isoflop: Call, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    on_gpus(files[1], "hours: 0.01\n")
    assert isoflop("submit", files[0], "--dry-run", "--rate", "2") == 0
    output = capsys.readouterr().out
    assert "# `hours: 0.01` would end it before that." in output.splitlines()
    assert "Costs" not in output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--rate", "100"), "there is no --dry-run"),
        (("--dry-run", "--price", "2"), "there is no --rate"),
        (("--dry-run", "--rate", "100"), "`trial: {gpu: 1}`"),
        (("--dry-run", "--rate", "0"), "above 0"),
    ],
)
def test_an_estimate_that_cannot_be_made_is_refused_in_a_line(
    *,
    isoflop: Call,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    sentence: str,
) -> None:
    if "0" in words:
        on_gpus(files[1])
    assert isoflop("submit", files[0], *words) == 2
    assert sentence in capsys.readouterr().err
