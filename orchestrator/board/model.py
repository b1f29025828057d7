"""What the board is made of: cells, comparisons, effort, as frozen values."""

from dataclasses import dataclass
from typing import Literal

from orchestrator.board.choose import Choice, Excluded
from orchestrator.board.rules import Rules
from orchestrator.board.stats.fronts import Attainment
from orchestrator.board.stats.intervals import Difference, Summary
from orchestrator.record.rows import Row

INTERVAL_FROM, RANKED_FROM = 3, 5
"""Seeds that a cell needs to have an interval, and to be ranked."""
State = Literal["no point", "not confirmed yet", "value", "mean and sd", "not ranked", "ranked"]
Drawn = Literal["predictions", "counts", "seeds"]
"""What P(best) resamples beside the seeds: the test images as they were predicted, binomial counts
of right ones, or nothing."""


@dataclass(frozen=True)
class Worth:
    """What deciding per image is worth to a cell's networks; means over seeds."""

    gain: Summary
    """Accuracy by own decisions less that by another image's; the interval is over seeds, and over
    images where `images`."""
    images: bool
    another: float
    """Accuracy with each image under another one's decisions, at the same MACs."""
    majority: float
    """Accuracy with all images under the majority's decisions."""
    majority_macs: float
    everything: float | None
    """Accuracy with all images under the decision to run all; None where there is none."""
    everything_macs: float | None
    alike: float
    """Fraction of the images that have the most frequent decisions."""

    @property
    def dynamic(self) -> bool:
        """Whether own decisions are worth more than others': the interval is above 0."""
        return self.gain.lo is not None and self.gain.lo > 0

    @property
    def runs_all(self) -> bool:
        """Whether the majority's decision is to run all."""
        return self.everything_macs is not None and self.majority_macs >= self.everything_macs


@dataclass(frozen=True)
class Cell:
    """A method at a budget: what was chosen on validation, and what its fresh seeds gave."""

    method: str
    budget: float
    """MMACs."""
    choice: Choice | None
    seeds: tuple[Row, ...]
    """The confirm rows, by seed: each carries a test accuracy and its measured MACs."""
    accuracy: Summary
    top5: float | None
    """Fraction of the test images whose class is among the five most likely, mean over seeds; None
    where there are few classes."""
    macs_mean: float | None
    """Measured on test, mean over seeds, MACs."""
    macs_p95: float | None
    macs_max: float | None
    overrun: bool
    """The measured mean on test exceeds the budget, which validation kept."""
    collapsed: tuple[int, ...]
    """Seeds at chance level or under half of the cell's median; they count like all others."""
    failed: tuple[int, ...]
    """Confirm seeds that ended without a usable figure."""
    p_best: float | None
    """Share of the bootstrap's resamples in which no other method has a higher mean."""
    group: str
    """'A' for all that are not separable from the leader, then 'B', ...; '' where not ranked."""
    worth: Worth | None = None
    """None where the networks decide nothing per image, or where it was not measured."""
    fixed: bool = False
    """The chosen operating point is one network for all images, where others of its runs decide."""

    @property
    def static(self) -> bool:
        """Whether a method that decides per image gains nothing by it here."""
        return self.fixed or (self.worth is not None and not self.worth.dynamic)

    @property
    def n(self) -> int:
        return self.accuracy.n

    @property
    def accuracies(self) -> list[float]:
        """The test accuracy of each seed."""
        return [row.test_acc for row in self.seeds if row.test_acc is not None]

    @property
    def state(self) -> State:
        """How much can be said from so many seeds."""
        if self.choice is None:
            return "no point"
        few: tuple[State, ...] = ("not confirmed yet", "value", "mean and sd")
        if self.n < len(few):
            return few[self.n]
        return "ranked" if self.n >= RANKED_FROM else "not ranked"


@dataclass(frozen=True)
class Comparison:
    """Mean test accuracy of `method` less that of `other` at one budget (MMACs)."""

    method: str
    other: str
    budget: float
    result: Difference
    p_holm: float | None
    """Adjusted over the comparisons it was listed with; None where that family is not tested."""
    more: int | None = None
    """Further seeds of each that would separate them, 0 where they are; see `more_seeds`."""
    noise: bool = False
    """No larger than the noise floor that a control gave."""
    images: Difference | None = None
    """The same difference for new seeds and new test images, paired by image; see `crossed`."""


@dataclass(frozen=True)
class Effort:
    """What a method was given. All trials stay in the denominator, whatever their outcome."""

    method: str
    search: int
    complete: int
    pruned: int
    failed: int
    refused: int
    over_budget: int
    running: int
    confirm: int
    confirm_failed: int
    epochs: int
    seconds: float

    @property
    def trained(self) -> int:
        """Search trials that took a worker."""
        return self.search - self.refused - self.over_budget


@dataclass(frozen=True)
class Reach:
    """The least confirmed MACs with a mean test accuracy of at least `accuracy`; None: not reached.

    Limited to the configurations that were confirmed.
    """

    method: str
    accuracy: float
    macs: float | None


@dataclass(frozen=True)
class Race:
    """Further seeds that were given to the cells whose order at the primary budget was open."""

    seeds: int
    """What every cell had before."""
    budget: int
    """Further confirm runs that the study allows."""
    spent: int
    undecided: tuple[Comparison, ...]
    """Neighbours in the order, and methods against the baseline, that are still not separated."""


@dataclass(frozen=True)
class Board:
    """Everything the report says, in the order of its methods at the primary budget."""

    rules: Rules
    methods: tuple[str, ...]
    passed_over: tuple[Choice, ...]
    """What is best on validation at an undeclared budget, where that was never confirmed."""
    cells: tuple[Cell, ...]
    gains: tuple[Comparison, ...]
    """Against the baseline at every budget; `p_holm` at the primary budget only."""
    pairs: tuple[Comparison, ...]
    """All pairs of methods; Holm over the pairs of one budget."""
    reach: tuple[Reach, ...]
    area: dict[str, Summary]
    """Mean best accuracy over log-MACs between the least and the largest budget; secondary."""
    attainment: dict[str, Attainment | None]
    """What one, half and all of a method's seeds attain on test."""
    noise_floor: float | None
    """The largest gap that a control has to its method, as a fraction."""
    race: Race | None
    drawn: dict[float, Drawn]
    """What P(best) was drawn from, at each budget that has one."""
    effort: tuple[Effort, ...]
    excluded: tuple[Excluded, ...]

    @property
    def budgets(self) -> tuple[float, ...]:
        return self.rules.budgets

    @property
    def primary(self) -> float:
        return self.rules.primary

    @property
    def baseline(self) -> str:
        return self.rules.baseline

    def cell(self, method: str, budget: float) -> Cell:
        return next(c for c in self.cells if c.method == method and c.budget == budget)

    def gain(self, method: str, budget: float) -> Comparison | None:
        """The comparison with the baseline; None for the baseline itself."""
        gains = (g for g in self.gains if g.method == method and g.budget == budget)
        return next(gains, None)

    @property
    def contenders(self) -> tuple[str, ...]:
        """The methods without the controls."""
        return tuple(name for name in self.methods if name not in self.rules.controls)

    @property
    def confirmed(self) -> bool:
        return any(cell.n for cell in self.cells)
