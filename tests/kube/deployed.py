"""The chart's containers as processes of this machine, as their objects state them."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from manifests import Json, chart, named
from ports import free_port


def spec_of(name: str, kind: str, start: str) -> Json:
    """The pod of an object, by what its name starts with."""
    objects = [o for o in chart(name) if o["kind"] == kind]
    found = named(
        tuple(objects),
        kind,
        next(o["metadata"]["name"] for o in objects if o["metadata"]["name"].startswith(start)),
    )
    return dict(found["spec"]["template"]["spec"])


def environment(container: Json, secrets: Mapping[str, str], folder: Path) -> dict[str, str]:
    """A container's environment: `secrets` has its variables from Secrets, and others to change."""
    plain = {v["name"]: secrets.get(v["name"]) or v["value"] for v in container["env"]}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **plain, "HOME": str(folder), "PATH": path}


def words(container: Json, changes: Mapping[str, str]) -> list[str]:
    """A container's command with its arguments, some parts of them replaced."""
    command = [*container["command"], *container.get("args", [])]
    for old, new in changes.items():
        command = [word.replace(old, new) for word in command]
    return command


@contextlib.contextmanager
def mlflow(name: str, secrets: Mapping[str, str], folder: Path) -> Iterator[int]:
    """The port of MLflow's server, started as the Deployment of a value set states."""
    container = spec_of(name, "Deployment", "mlflow")["containers"][0]
    port = free_port()
    changes = {"port=5000": f"port={port}", "0.0.0.0": "127.0.0.1", "workers=2": "workers=1"}
    variables = environment(container, secrets, folder)
    variables["MLFLOW_SERVER_ALLOWED_HOSTS"] += f",127.0.0.1:{port}"  # in place of 5000
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            words(container, changes),
            env=variables,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        _until(port, container["startupProbe"]["httpGet"]["path"], process)
        yield port
    finally:
        process.terminate()
        process.wait()


def status(port: int, path: str, host: str) -> int:
    """The state of HTTP that a request gets."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def _until(port: int, path: str, process: Any) -> None:
    deadline = time.monotonic() + 240
    while True:
        try:
            if status(port, path, "localhost") == 200:
                return
        except OSError:
            time.sleep(0.2)
        assert process.poll() is None, "the server ended"
        assert time.monotonic() < deadline
