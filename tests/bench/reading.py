"""What it takes to read a board from a store of many runs: `python -m tests.bench.reading`.

One real study is projected into an MLflow on SQLite; its search trials are then copied, row by row
of the tables, until there are as many as asked for. Each command runs in a separate process.
"""

import argparse
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from boards import study_rows
from mlflow import MlflowClient
from rich.console import Console
from stores import held, study

from orchestrator import store

console = Console()
RUN = "from orchestrator.cli import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    runs = parser.parse_args().runs
    folder = Path(tempfile.mkdtemp(prefix="reading-"))
    try:
        console.print(f"building a store of {runs} runs in {folder}")
        uri = build(folder, runs)
        measure(folder, uri)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build(folder: Path, runs: int) -> str:
    """A store with so many trials."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    held(uri, folder, study(), study_rows())
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("demo")
    searched = client.search_runs([experiment.experiment_id], "tags.role = 'trial-search'")
    done = [run for run in searched if run.data.tags.get("state") == "COMPLETE"]
    database = sqlite3.connect(folder / "mlflow.db")
    for i in range(runs - len(searched)):
        source = done[i % len(done)]
        copy(
            database, source.info.run_id, f"{i:032x}", f"{source.data.tags['method']}-{100 + i:05d}"
        )
    database.commit()
    database.close()
    return uri


def copy(database: sqlite3.Connection, source: str, name: str, trial: str) -> None:
    for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        picked = ", ".join("?" if c == "run_uuid" else c for c in columns)
        database.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {picked} FROM {table} "
            "WHERE run_uuid = ?",
            (name, source),
        )
    told = "UPDATE tags SET value = ? WHERE run_uuid = ? AND key IN ('trial', 'config', 'key')"
    database.execute(told, (trial, name))


def measure(folder: Path, uri: str) -> None:
    cache = folder / "cache"
    began = time.perf_counter()
    plain = store.read_trials(uri, "demo")
    console.print(f"{len(plain)} rows from MLflow: {time.perf_counter() - began:.2f} s")
    for kind in ("first", "cached"):
        began = time.perf_counter()
        same = store.read_trials(uri, "demo", cache=cache) == plain
        console.print(f"{kind} reading: {time.perf_counter() - began:.2f} s, the same: {same}")
    for kind in ("first", "cached", "--refresh"):
        command(
            folder, "board", "demo", *(["--refresh"] if kind.startswith("-") else []), kind=kind
        )
    command(folder, "compare", "demo", "--at", "1,1.5,3", kind="cached")


def command(folder: Path, *words: str, kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", RUN, *words, "--out", str(folder)], check=True, capture_output=True
    )
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    console.print(
        f"isoflop {words[0]}, {kind}: {time.perf_counter() - began:.1f} s, of CPU {spent:.1f} s"
    )


if __name__ == "__main__":
    main()
