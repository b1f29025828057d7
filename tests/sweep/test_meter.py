"""What Ray exports of a sweep is what its record holds."""

import json
import re
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus import PROGRAM, Prometheus

from orchestrator.record.events import End, Epoch, Start
from orchestrator.record.ledger import Doing, News
from orchestrator.record.log import read
from orchestrator.record.result import Outcome
from orchestrator.study.file import load
from orchestrator.sweep import meter as metering
from orchestrator.sweep.ready import Place
from orchestrator.sweep.run import run

TEXT = """
name: metered
data: digits
budgets: [0.2, 0.5]
recipe: {epochs: 2, batch_size: 64}
resources: {concurrency: 2}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5, 1.0]}}
  skipnet: {depth: 8, width: 0.25, gate: rnn}
search: {trials: 3, sampler: random}
confirm: {seeds: 1}
"""
DASHBOARD = Path(__file__).parents[2] / "k8s" / "chart" / "dashboard.json"
SAMPLE = re.compile(r"^ray_(isoflop\w+|resources)\{(.*)\} (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')
Levels = dict[tuple[str, ...], float]
"""Figures by name and the values of their labels."""


def exported(port: int) -> Levels:
    """What Ray's agent on this machine says of isoflop's figures and of resources."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    levels: Levels = {}
    for line in lines:
        if sample := SAMPLE.match(line):
            labels = dict(LABEL.findall(sample[2]))
            wanted = ("study", "method", "state", "reason", "Name", "State")
            key = (sample[1], *(labels[name] for name in wanted if name in labels))
            levels[key] = float(sample[3])
    return levels


def expressions() -> list[str]:
    """What the dashboard asks, with its variables as Grafana fills them in for `All`, and of CPUs
    instead of GPUs."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel["targets"]]
    changes = {"$namespace": ".+", "$study": ".+", '"GPU"': '"CPU"'}
    for old, new in changes.items():
        texts = [text.replace(old, new) for text in texts]
    return texts


def counted(log: Path) -> Levels:
    """The same from the record, by other code."""
    levels: Levels = defaultdict(float)
    methods: dict[str, str] = {}
    steps: dict[str, int] = {}
    began = 0
    for event in read(log)[0]:
        if isinstance(event, Start):
            methods[event.trial] = event.method
            began = began or event.time
            levels["isoflop_trials_running", "metered", event.method] += 0
        elif isinstance(event, Epoch):
            steps[event.trial] = event.step
        elif isinstance(event, End):
            place = ("metered", methods[event.trial])
            outcome = Outcome.of(event.state, event.reason)
            if outcome.took_a_worker:
                levels["isoflop_trials_ended", *place, outcome.word] += 1
                levels["isoflop_trial_seconds", *place] += event.seconds
            else:
                levels["isoflop_trials_refused", *place, outcome.word] += 1
    for trial, step in steps.items():
        levels["isoflop_epochs", "metered", methods[trial]] += step
    levels["isoflop_began_seconds", "metered"] = began / 1000
    return dict(levels)


@pytest.mark.ray
@pytest.mark.slow
def test_ray_exports_what_the_record_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    monkeypatch.setattr(metering, "REFRESH", 0.3)
    (tmp_path / "study.yaml").write_text(TEXT)
    seen: Levels = {}
    shown: dict[str, list[dict[str, Any]]] = {}
    log = tmp_path / "runs" / "metered" / "wal.jsonl"

    def listener(news: News) -> None:
        """Ask when all trials have ended and Ray still runs: as the board's networks are timed."""
        if not (isinstance(news, Doing) and news.what == "Measuring latency" and not seen):
            return
        (node,) = ray.nodes()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            levels = exported(int(node["MetricsExportPort"]))
            if counted(log).items() <= levels.items():
                break
            time.sleep(0.2)
        seen.update(levels)
        if PROGRAM:
            with Prometheus(tmp_path, int(node["MetricsExportPort"]), "team-a") as prometheus:
                prometheus.until('ray_resources{State="USED"}')
                prometheus.until("ray_isoflop_epochs")
                shown.update({each: prometheus.query(each) for each in expressions()})

    run(load(tmp_path / "study.yaml"), Place(out=tmp_path / "runs"), listener=listener)
    figures = {key: value for key, value in seen.items() if key[0].startswith("isoflop")}
    assert figures == counted(log)
    assert {key[0] for key in figures} == {*metering.FIGURES, metering.BEGAN}
    assert ("resources", "CPU", "USED") in seen
    assert ("resources", "CPU", "AVAILABLE") in seen
    queries = re.findall(r"ray_(\w+)", DASHBOARD.read_text())
    assert set(queries) == {key[0] for key in seen}, "the dashboard asks for what is exported"
    for expression, series in shown.items():
        assert series, expression
    if not PROGRAM:
        pytest.skip("the queries were not evaluated: no Prometheus is installed")
    (epochs,) = (e for e in shown if e.startswith("sum by (method)"))
    values = {each["metric"]["method"]: float(each["value"][1]) for each in shown[epochs]}
    counts = counted(log)
    assert values == {m: counts["isoflop_epochs", "metered", m] for m in ("dense", "skipnet")}
