"""What is timed is what was measured, and the honesty ratio is what its definition says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from boards import BUDGETS, study_rows

from methods.data.load import load
from methods.errors import StorageError
from methods.training.evaluate import evaluate
from orchestrator.board.latency import SEEDS, Network, Pair, missing, pairs, timed
from orchestrator.record.depot import Folder
from orchestrator.record.events import Latency, Point
from orchestrator.study.params import recorded_parts
from orchestrator.trial.checkpoints import deployed, view
from orchestrator.trial.job import Job, Settings
from orchestrator.trial.latency import BATCHES, ROUNDS, measured
from orchestrator.trial.run import results

RECIPE = {"recipe.epochs": 3, "recipe.batch_size": 64, "recipe.lr": 0.1}
SMALL: dict[str, dict[str, Any]] = {
    "dense": {"depth": 8, "width": 0.25},
    "skipnet": {"depth": 8, "width": 0.25, "gate": "rnn"},
    "dsnet": {"depth": 8, "width": 0.25, "choices": 2, "routing_start": 0, "routing_size": 2},
    "resrep": {"depth": 8, "width": 0.25, "target": 0.6},
}


def settings(folder: Path) -> Settings:
    return Settings(data="digits", data_seed=0, folder=folder, device="cpu", threads=1)


def trained(folder: Path, method: str) -> tuple[dict[str, Any], tuple[Point, ...]]:
    """A short confirm run: its parameters, and its operating points."""
    params = SMALL[method] | RECIPE
    trial = f"{method}-00000-seed1"
    job = Job(trial, method, params, "confirm", 3, settings(folder))
    ending = list(results(job))[-1].ending
    assert ending is not None
    assert ending.state == "COMPLETE", ending
    return params, ending.points


@pytest.mark.parametrize(
    "name", ["skipnet", *(pytest.param(n, marks=pytest.mark.full) for n in SMALL if n != "skipnet")]
)
def test_every_point_of_a_confirm_run_is_found_again(tmp_path: Path, name: str) -> None:
    params, points = trained(tmp_path, name)
    data = load("digits", seed=0, device="cpu")
    method = recorded_parts(name, params)[0]
    folder = Folder(tmp_path / "trials" / f"{name}-00000-seed1")
    assert len(points) >= len(method.phases())
    for point in points:
        assert point.test is not None
        again = evaluate(view(folder, method, data.task, point.point), data.test)
        assert again.accuracy == point.test.accuracy, point.point
        assert again.macs_mean == pytest.approx(point.test.macs_mean, rel=1e-12)
        shipped = deployed(folder, method, data.task, point.point)
        images, labels = data.test.head(len(data.test))
        accuracy = float((shipped(images).argmax(1) == labels).double().mean())
        assert accuracy == pytest.approx(point.test.accuracy, abs=3 / 360)
    with pytest.raises(StorageError, match="operating point 'nowhere'"):
        view(folder, method, data.task, "nowhere")


def test_a_pair_is_timed_at_both_sizes_in_its_fastest_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    networks = []
    for name in ("skipnet", "dense"):
        params, points = trained(tmp_path, name)
        networks.append(Network(name, f"{name}-00000-seed1", points[0].point, params))
    latencies = measured(Pair(*networks), settings(tmp_path))
    assert [latency.batch for latency in latencies] == list(BATCHES)
    for latency in latencies:
        assert latency.point == "supervised"
        assert min(latency.ms or 0, latency.reference_ms or 0) > 0
        assert latency.device
        assert (latency.forms or "").startswith(("channels last", "contiguous"))
        assert latency.reference_forms
        assert latency.calls == BATCHES[latency.batch or 0] * ROUNDS[latency.batch or 0]
        assert (latency.p95_ms or 0) >= (latency.ms or 0) / 2
        assert (latency.energy is not None) == (latency.batch == 64), "counted, or why not"
    assert any((tmp_path / "cache" / "isoflop" / "forms").iterdir()), "kept for the next time"


def test_a_network_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    params, _ = trained(tmp_path, "dense")
    there = Network("dense", "dense-00000-seed1", "", params)
    gone = Network("dense", "dense-00007-seed1", "", params)
    (event,) = measured(Pair(gone, there), settings(tmp_path))
    assert "dense-00007-seed1/last.pt cannot be read: No such file" in (event.reason or "")
    assert missing([Pair(gone, there), Pair(there, there)], [event]) == [Pair(there, there)]


def test_each_cell_is_timed_beside_the_baseline_of_its_budget_and_seed() -> None:
    rows = study_rows()
    found = pairs(rows, BUDGETS, "dense")
    assert len({pair.key for pair in found}) == len(found)
    assert {pair.network.method for pair in found} == {"dense", "skipnet", "slimming"}
    for pair in found:
        assert pair.reference.method == "dense"
        assert pair.network.trial[-6:] == pair.reference.trial[-6:]
        assert pair.network.method != "dense" or pair.network == pair.reference
    seeds = sorted({pair.network.trial[-6:] for pair in found})
    assert seeds == [f"-seed{seed}" for seed in range(1, SEEDS + 1)]
    lost = [row for row in rows if not (row.method == "dense" and row.seed == 2)]
    beside = {pair.reference.trial[-6:] for pair in pairs(lost, BUDGETS, "dense")}
    assert beside == {"-seed1", "-seed3", "-seed4"}, "the lowest seed in place of the lost one"
    assert pairs([row for row in rows if row.method != "dense"], BUDGETS, "dense") == []
    assert missing(found, []) == found


def test_honesty_is_the_measured_speed_up_over_the_promised_one() -> None:
    rows = study_rows()
    found = pairs(rows, BUDGETS, "dense")
    pair = next(pair for pair in found if pair.network.method == "skipnet")
    clock = Latency(*pair.key, batch=64, ms=4.0, spread_ms=0.1, reference_ms=6.0, device="x")
    (one, *_) = timed(rows, BUDGETS, "dense", [replace(clock, forms="channels last")])
    (old, *_) = timed(rows, BUDGETS, "dense", [clock])
    assert (one.forms, old.forms) == ("channels last", "")
    assert replace(old, forms=one.forms) == one
    macs = {row.trial: row.test_macs_mean for row in rows if row.role == "confirm"}
    promised = (macs[pair.reference.trial] or 0) / (macs[pair.network.trial] or 1)
    assert one.speed_up == pytest.approx(1.5)
    assert one.macs_speed_up == pytest.approx(promised)
    assert one.honesty == pytest.approx(1.5 / promised)
    (lost, *_) = timed(rows, BUDGETS, "dense", [Latency(*pair.key, reason="gone")])
    assert (lost.ms, lost.honesty, lost.reason) == (None, None, "gone")


def test_a_line_has_the_median_over_seeds_and_their_spread() -> None:
    rows = study_rows()
    found = [pair for pair in pairs(rows, BUDGETS, "dense") if pair.network.method == "slimming"]
    first = [pair for pair in found if pair.network.trial.startswith(found[0].network.trial[:14])]
    events = [
        Latency(*pair.key, batch=1, ms=ms, spread_ms=0.2, reference_ms=2.0, p95_ms=2 * ms, calls=9)
        for pair, ms in zip(first, (1.0, 2.0, 3.0), strict=True)
    ]
    (line, *_) = timed(rows, BUDGETS, "dense", events)
    assert (line.seeds, line.ms, line.seeds_sd_ms, line.p95_ms) == (3, 2.0, 1.0, 4.0)
    assert line.speed_up == 1.0, "of 2, 1 and 2/3: each beside its own baseline"
    assert line.ms_text == "2 ± 1"
    (lost, *_) = timed(rows, BUDGETS, "dense", [replace(events[0], ms=None), *events[1:]])
    assert (lost.seeds, lost.ms, lost.joules) == (2, 2.5, None)
    old = replace(events[0], p95_ms=None, calls=None)
    (early, *_) = timed(rows, BUDGETS, "dense", [old])
    assert (early.seeds, early.ms_text, early.p95_ms, early.energy) == (1, "1", None, "")
