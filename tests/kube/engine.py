"""The container engine of this machine, and the image that it builds from k8s/Dockerfile.

Where no registry of images answers, the base is made of Debian's packages by `mmdebstrap` and takes
the name that the Dockerfile asks for, and the wheels are those that this environment's pip finds.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from manifests import K8S, ROOT

TAG = "isoflop:image-check"
PYTHON = "python3,python3-venv,python-is-python3,ca-certificates"
LIMIT = 4096
"""Of processes and of open files in a container; not every machine allows more."""


@dataclass(frozen=True)
class Engine:
    """Docker or Podman."""

    program: str
    options: tuple[str, ...]
    limits: tuple[str, ...]

    @classmethod
    def found(cls) -> "Engine | None":
        """The first that works here."""
        limits = tuple(f"--ulimit={name}={LIMIT}:{LIMIT}" for name in ("nofile", "nproc"))
        # crun, which Podman prefers, knows the second version of control groups alone.
        old = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
        runtime = ("--runtime=runc",) if old and shutil.which("runc") else ()
        for engine in (cls("docker", (), ()), cls("podman", runtime, limits)):
            if shutil.which(engine.program) and engine.run("info", check=False).returncode == 0:
                return engine
        return None

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of the engine; what it says is in the error if it fails."""
        command = [self.program, *self.options, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done

    def build(self, folder: Path) -> "Image":
        """The image of k8s/Dockerfile; `folder` takes what has to be made for it."""
        base = _base()
        words = ["build", *self.limits, "--file", str(K8S / "Dockerfile"), "--tag", TAG]
        if self.run("pull", base, check=False).returncode == 0:
            told = f"on {base}"
        else:
            _debian(folder / "base.tar")
            self.run("import", str(folder / "base.tar"), base)
            wheels = folder / "wheels"
            _download(wheels)
            words += ["--network=none", f"--volume={wheels}:/wheels:ro"]
            words += ["--env=PIP_NO_INDEX=1", "--env=PIP_FIND_LINKS=/wheels"]
            told = f"on Debian's packages in place of {base}, which no registry gave"
        if self.program == "podman":
            words += ["--pull-never", "--format=docker"]
        self.run(*words, str(ROOT))
        return Image(self, told)


@dataclass(frozen=True)
class Image:
    """The built image."""

    engine: Engine
    told: str
    """What it was built on."""

    @property
    def size(self) -> int:
        """Bytes of all its layers."""
        (about,) = json.loads(self.engine.run("image", "inspect", TAG).stdout)
        return int(about["Size"])

    def container(self, mounts: Sequence[str] = ()) -> tuple[str, ...]:
        """As a pod's: not root, a root file system that is read only; no network but loopback."""
        locked = ("--read-only", "--tmpfs=/tmp", "--shm-size=1g", "--network=none", "--rm")
        return (*locked, "--cap-drop=all", *self.engine.limits, *(f"--volume={m}" for m in mounts))

    def call(self, *words: str, mounts: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """What a command prints in a container of its own."""
        return self.engine.run("run", *self.container(mounts), TAG, *words)

    @contextmanager
    def serving(self, *words: str) -> Iterator[str]:
        """The name of a container in which the command runs."""
        name = self.engine.run("run", "--detach", *self.container(), TAG, *words).stdout.strip()
        try:
            yield name
        finally:
            self.engine.run("rm", "--force", name, check=False)


def _base() -> str:
    """The image that the Dockerfile begins with."""
    version = re.search(r"^ARG PYTHON=(\S+)", (K8S / "Dockerfile").read_text(), re.MULTILINE)
    assert version is not None
    return f"docker.io/library/python:{version[1]}"


def _debian(tar: Path) -> None:
    """A base of this machine's Debian, with its own Python."""
    release = re.search(r"VERSION_CODENAME=(\S+)", Path("/etc/os-release").read_text())
    assert release is not None
    suite = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PYTHON}"]
    subprocess.run([*suite, release[1], str(tar)], check=True)


def _download(folder: Path) -> None:
    """All wheels that the Dockerfile installs, by this environment's pip and its settings."""
    pip = [sys.executable, "-m", "pip", "--quiet", "download", "--dest", str(folder)]
    locked = ["--constraint", str(ROOT / "requirements.lock"), f"{ROOT}[cluster]"]
    subprocess.run([*pip, *locked, "setuptools", "wheel"], check=True, env=os.environ)
