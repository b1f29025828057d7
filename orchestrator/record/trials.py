"""One trial as it is planned (`Ticket`) and as the log tells it (`Record`)."""

from dataclasses import dataclass, field

from methods.values import Params
from orchestrator.record.events import End, Epoch, Role, Start
from orchestrator.record.result import Outcome
from orchestrator.record.rows import config_hash
from orchestrator.study.params import PREFIX

EPOCHS = PREFIX + "epochs"
"""A trial's length, among its parameters."""
OVER = "over"
"""Attribute in the journal of a trial that took no worker: by which fraction it is over budget."""


@dataclass(frozen=True)
class Ticket:
    """A trial to be run: all that a worker needs to know, and what it was chosen for."""

    trial: str
    method: str
    role: Role
    config: str
    seed: int
    params: Params
    budgets: tuple[float, ...] = ()
    point: str = ""

    @property
    def config_hash(self) -> str:
        """Twelve hex digits of the method and all its parameters."""
        return config_hash(self.method, self.params)


@dataclass
class Record:
    """One trial as the log tells it."""

    start: Start
    attempts: int = 0
    vain: int = 0
    """Starts in a row that brought no new epoch, the present one included."""
    open: bool = False
    """Whether it was started and has not ended since, nor has its worker."""
    orphaned: bool = False
    """Whether its last start ended with its driver, or with all of Ray."""
    death: str = ""
    """How its last start ended."""
    step: int = 0
    curve: list[Epoch] = field(default_factory=list)
    """Its epochs, until it ends: from then on they are in the log alone."""
    end: End | None = None

    @property
    def length(self) -> int:
        """Epochs of the whole trial."""
        return int(self.start.params[EPOCHS])

    @property
    def effort(self) -> int:
        """Epochs that the ended trial counts for: a failed one at least a quarter of its length,
        so that a method whose trials all fail comes to its end."""
        assert self.end is not None, "only what ended has a price"
        if self.end.state == "COMPLETE":
            return self.length
        failed = self.end.state == "FAIL" and self.took_a_worker
        return max(self.step, -(-self.length // 4) if failed else 0)

    @property
    def took_a_worker(self) -> bool:
        """False for a trial that ended as over budget or refused."""
        return self.end is None or Outcome.of(self.end.state, self.end.reason).took_a_worker
