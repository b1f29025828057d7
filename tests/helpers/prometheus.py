"""Prometheus itself, where it is installed (Debian: `prometheus`)."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from ports import free_port

PROGRAM = shutil.which("prometheus")


class Prometheus:
    """`with Prometheus(folder, port, namespace) as server`: it reads a port of this machine, and
    labels what it reads as prometheus-operator does for a PodMonitor."""

    def __init__(self, folder: Path, port: int, namespace: str) -> None:
        self._port = free_port()
        target = {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": namespace}}
        jobs = [{"job_name": "ray", "static_configs": [target]}]
        settings = folder / "prometheus.yml"
        often = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
        settings.write_text(yaml.safe_dump({"global": often, "scrape_configs": jobs}))
        self._words = [
            PROGRAM or "prometheus",
            f"--config.file={settings}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]

    def __enter__(self) -> "Prometheus":
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._words, stdout=quiet, stderr=quiet)
        return self

    def __exit__(self, *what: object) -> None:
        self._process.kill()
        self._process.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now."""
        words = urllib.parse.urlencode({"query": expression})
        address = f"http://127.0.0.1:{self._port}/api/v1/query?{words}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            series: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return series

    def until(self, expression: str) -> None:
        """Wait until an expression gives something."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                if self.query(expression):
                    return
            assert time.monotonic() < deadline, expression
            time.sleep(0.2)
