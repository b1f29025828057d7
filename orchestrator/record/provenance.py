"""Where a board's numbers come from: study, code, versions, machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from methods.api import Task
from methods.machine import device_name
from orchestrator.study.file import Study

PACKAGES = ("isoflop", "torch", "ray", "optuna", "mlflow", "fvcore", "numpy", "scipy", "moocore")


def provenance(study: Study, task: Task, test_images: int) -> dict[str, Any]:
    """All that must be the same for the numbers to be the same; no clock, no path."""
    return {
        "study": study.model_dump(mode="json"),
        "study_hash": study.hash,
        "classes": task.classes,
        "image": [task.channels, task.height, task.width],
        "test_images": test_images,
        "commit": commit(),
        "convention": "MACs of convolutions and matrix products, gates and routing included "
        "(fvcore FLOPs); normalisation, bias, activations and pooling are free",
        "python": platform.python_version(),
        "versions": versions(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": device_name("cpu"),
            "cores": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def versions() -> dict[str, str]:
    """The packages that the numbers may depend on, as they are installed here."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def commit() -> str:
    """The commit of the code that runs, `+` where files differ from it; empty outside git."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", str(here), str(here.parent / "methods"))
    except FileNotFoundError:
        return ""
    return head + ("+" if head and changed else "")
