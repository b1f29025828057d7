"""The installed command, run in a folder whose files are named like modules."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

ISOFLOP = Path(sys.executable).with_name("isoflop")
STUDY = """
name: quickstart
data: digits
budgets: [0.25, 0.5]
recipe: {epochs: 2, batch_size: 64}
methods:
  dense: {depth: 8, width: {choices: [0.25, 0.5]}}
  skipnet: {depth: 8, width: 0.25, gate: rnn}
search: {trials: 2}
confirm: {seeds: 2}
"""
BROKEN = 'raise SystemError("imported from the working folder")\n'
SHADOWS = ("methods.py", "isoflop.py", "random.py", "types.py", "socket.py", "numpy.py")


def shadowed(folder: Path) -> Path:
    """A folder with a study, and with modules that nothing may import."""
    (folder / "orchestrator").mkdir(parents=True)
    (folder / "orchestrator" / "__init__.py").write_text(BROKEN)
    for name in SHADOWS:
        (folder / name).write_text(BROKEN)
    (folder / "study.yaml").write_text(STUDY)
    return folder


def mirror_of(driver: int) -> int | None:
    """The process that writes to MLflow: the driver's child that has the lock open."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent != driver:
                continue
            files = [file.readlink().name for file in (folder / "fd").iterdir()]
            if "mlflow.lock" in files:
                return int(folder.name)
    return None


def until_mirrored(process: "subprocess.Popen[str]", timeout: float = 240) -> int:
    """Waits for the process that `mirror_of` finds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        if (mirror := mirror_of(process.pid)) is not None:
            return mirror
        time.sleep(0.05)
    raise AssertionError("the sweep has no process that writes to MLflow")
