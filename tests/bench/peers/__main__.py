"""Install the environments of the peers, each in a folder of its own.

    python -m tests.bench.peers install            # all of them
    python -m tests.bench.peers install primo      # or some

What is installed is left as it is. `python -m tests.bench.races` then runs them.
"""

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from rich.console import Console

from tests.bench.peers import ENVIRONMENTS, PEERS, READY, python_of

CONSOLE = Console(highlight=False, soft_wrap=True)


def install(name: str, environments: Path) -> str | None:
    """Install a peer's environment anew, unless it is there; why that failed, in one line."""
    if python_of(name, environments) is not None:
        CONSOLE.print(f"{name}: installed")
        return None
    folder, requirements = environments / name, PEERS[name].requirements
    CONSOLE.print(f"{name}: installing {' '.join(requirements)} in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *requirements]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return f"{name}: pip cannot install it: {' '.join(lines[-1:]) or done.stderr[-300:]}"
    (folder / READY).write_text("\n".join(requirements))
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["install"])
    installed = [name for name, peer in PEERS.items() if peer.requirements]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(installed)}")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in installed]:
        parser.error(f"no peer is called {unknown[0]!r}; the peers are {', '.join(installed)}")
    errors = [install(name, asked.environments) for name in asked.names or installed]
    failed = [error for error in errors if error]
    for error in failed:
        CONSOLE.print(error)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
