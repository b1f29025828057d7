"""Other tools' searchers as peers of isoflop's: adaptors, and the environments that they run in.

Each adaptor is a class that asks and tells (docs/search.md, 'A searcher of your own') in a module
that is run by the interpreter of its own environment, and imports nothing of isoflop.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.search.replay.foreign import Foreign

FOLDER = Path(__file__).parent
ENVIRONMENTS = FOLDER.parents[2] / "build" / "peers"
"""An environment for each peer, by name; the file READY in it lists what was installed."""
READY = ".ready"
PATIENCE = 300.0
"""Seconds for one answer: some import for half a minute, on a busy machine for longer."""


@dataclass(frozen=True)
class Peer:
    """A searcher of another tool."""

    title: str
    """As the tables call it."""
    place: str
    """Its adaptor in this folder."""
    requirements: Sequence[str] = ()
    """What its environment has; a peer without any is run by this interpreter."""


PEERS = {
    "one-epoch": Peer("one epoch, then the front", "one_epoch:OneEpoch"),
    "moasha": Peer("MO-ASHA (Syne Tune)", "mo_asha:MOASHA", ["syne-tune==0.16.0"]),
    "primo": Peer("PriMO (NePS)", "neps_primo:PriMO", ["neural-pipeline-search==0.17.0"]),
    "parego": Peer("ParEGO, Hyperband (SMAC)", "smac_parego:ParEGO", ["smac==2.4.1"]),
}


def python_of(name: str, environments: Path = ENVIRONMENTS) -> Path | None:
    """The interpreter of a peer; None where its environment is not installed as it must be."""
    if not PEERS[name].requirements:
        return Path(sys.executable)
    ready = environments / name / READY
    if not ready.exists() or ready.read_text().split() != list(PEERS[name].requirements):
        return None
    return environments / name / "bin" / "python"


def searcher(name: str, python: Path) -> Foreign:
    """The peer of this name, run by this interpreter."""
    peer = PEERS[name]
    return Foreign(peer.title, peer.place, str(python), FOLDER, PATIENCE)
