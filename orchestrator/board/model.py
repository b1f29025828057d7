"""The parts of the board: cells, comparisons and effort, as frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from orchestrator.board.choose import Choice, Excluded
from orchestrator.board.rules import Rules
from orchestrator.board.stats.contrasts import Difference
from orchestrator.board.stats.fronts import Attainment
from orchestrator.board.stats.intervals import Summary
from orchestrator.board.stats.units import Units
from orchestrator.record.rows import Row
from orchestrator.study.budgets import MACS, Cost

INTERVAL_FROM, TESTED_FROM = 3, 5
"""Number of units (repeats of a search, or seeds of a single one) that a cell needs for an
interval, and for a test."""
ALL_RUN, UNREDUCED = "itself with all run", "itself unreduced"
State = Literal["no point", "not confirmed yet", "value", "mean and sd", "not tested", "tested"]
Known = Literal["predictions", "counts", "seeds"]
"""The knowledge of the test images behind a budget's figures: the result of each run on each image,
their number, or nothing."""


@dataclass(frozen=True)
class Worth:
    """The worth of routing in a cell's networks; means over seeds."""

    gain: Summary
    """Accuracy with each image's own decisions minus that with another image's; the interval is
    over seeds and, if `images`, over images."""
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
        """Whether the worth is shown to be positive: its interval is above 0."""
        return self.gain.lo is not None and self.gain.lo > 0

    @property
    def runs_all(self) -> bool:
        """Whether the majority's decision is to run all."""
        return self.everything_macs is not None and self.majority_macs >= self.everything_macs


@dataclass(frozen=True)
class Cell:
    """A method at a budget: the configuration chosen on validation, and the results of its fresh
    seeds."""

    method: str
    budget: float
    """In the unit of the board's cost."""
    choices: tuple[Choice, ...]
    """One per search of the method; empty where nothing lies under the budget."""
    seeds: tuple[Row, ...]
    """The confirm rows, by search and seed: each carries a test accuracy and its measured MACs."""
    accuracy: Summary
    """Over units: the searches of a repeated study, the seeds of a single search."""
    seed_sd: float | None
    """From seed to seed of one configuration, pooled over the searches; None with one seed each."""
    top5: float | None
    """Fraction of the test images whose class is among the five most likely, mean over seeds; None
    where there are few classes."""
    macs_mean: float | None
    """Measured on test, mean over seeds, MACs."""
    macs_p95: float | None
    macs_max: float | None
    overrun: bool
    """Whether the mean cost of the confirm runs exceeds the budget, which the search met."""
    collapsed: tuple[str, ...]
    """Trials at chance level or under half of the cell's median; they count like all others."""
    failed: tuple[str, ...]
    """Confirm trials that ended without a usable figure."""
    p_best: float | None
    """Probability that no other method has a higher mean."""
    letters: str
    """Letters: methods that share one are not separated, methods that share none are; '' where not
    tested."""
    worth: Worth | None = None
    """None where the networks decide nothing per image, or where it was not measured."""
    fixed: bool = False
    """The chosen operating point is one network for all images, where others of its runs decide."""
    cost: Cost = MACS
    """The cost that the budget limits."""
    spent: float | None = None
    """The limited cost, mean over seeds: MACs on test, or milliseconds; see `Cost`."""
    spread: float | None = None
    """Uncertainty of `spent`, if a clock measures it: the standard deviation between seeds of one
    configuration or, if each has one run, the spread between the rounds of the clock."""
    units: Units = field(default=Units(()), compare=False, repr=False)
    """The data of comparisons."""

    @property
    def static(self) -> bool:
        """Whether a method that decides per image gains nothing by it here."""
        return self.fixed or (self.worth is not None and not self.worth.dynamic)

    @property
    def choice(self) -> Choice | None:
        """The choice of the first search where there are several."""
        return self.choices[0] if self.choices else None

    @property
    def used(self) -> float | None:
        """Fraction of the budget that the confirm runs take in the mean."""
        return None if self.spent is None else self.spent / self.cost.cap(self.budget)

    @property
    def n(self) -> int:
        """Units: searches with a figure, or seeds of a single search."""
        return self.accuracy.n

    @property
    def state(self) -> State:
        """Which statements so many units allow."""
        if not self.choices:
            return "no point"
        few: tuple[State, ...] = ("not confirmed yet", "value", "mean and sd")
        if self.n < len(few):
            return few[self.n]
        return "tested" if self.n >= TESTED_FROM else "not tested"


@dataclass(frozen=True)
class Comparison:
    """Mean test accuracy of `method` less that of `other` at one budget.

    Every statement about two methods, anywhere, is read from here.
    """

    method: str
    other: str
    budget: float
    result: Difference
    """The difference with its interval. If the pair is tested, the interval is adjusted like its
    p-value: it leaves out 0 exactly where that is below the level."""
    p_holm: float | None
    """Adjusted over the tested pairs; None where the pair is not tested."""
    separated: bool = False
    """Whether a difference is claimed."""
    more: int | None = None
    """Further units of each that would separate them, 0 where they are; see `more_seeds`."""
    noise: bool = False
    """No larger than the noise floor that a control gave."""

    @property
    def ahead(self) -> bool:
        """Whether `method` is claimed to be better than `other`."""
        return self.separated and (self.result.difference or 0.0) > 0

    @property
    def reversed(self) -> "Comparison":
        """The comparison with the two methods exchanged."""
        return replace(self, method=self.other, other=self.method, result=self.result.reversed)


@dataclass(frozen=True)
class NotWorse:
    """Whether a method is shown to be worse than a reference by less than the declared margin."""

    method: str
    other: str
    """The baseline, or the method's own networks: `ALL_RUN`, with all that can run, or
    `UNREDUCED`, the ones that they are reduced from."""
    difference: float
    p_holm: float
    """One-sided, adjusted over the methods that are compared so."""
    shown: bool


@dataclass(frozen=True)
class Matched:
    """A method at the primary budget less the baseline at what the method costs there."""

    method: str
    base: Cell
    """The baseline's best on validation at or under that cost, which is its budget."""
    result: Difference
    """Not adjusted, and no claim."""


@dataclass(frozen=True)
class Unreduced:
    """A method at the primary budget less the networks that its choices there are reduced from."""

    method: str
    base: Cell
    """Those networks, under no budget: nothing was chosen among them."""
    result: Difference
    """Not adjusted, and no claim."""
    saved: float | None
    """Fraction of their MACs that the method saves."""


@dataclass(frozen=True)
class Effort:
    """The effort of a method. Every trial counts, whatever its outcome."""

    method: str
    search: int
    complete: int
    pruned: int
    failed: int
    refused: int
    over_budget: int
    running: int
    candidates: int
    """Operating points of complete trials under the primary budget, among which the choice was
    made. A trial of a supernet has several."""
    confirm: int
    confirm_failed: int
    epochs: int
    """Epochs of all these trials, unreduced runs and bases included; the seconds likewise."""
    seconds: float
    unreduced: int = 0
    """Runs of what its choices are reduced from."""
    base: int = 0
    """Epochs of the base that its trials start from, in full for each method that shares it."""

    @property
    def trained(self) -> int:
        """Search trials that took a worker."""
        return self.search - self.refused - self.over_budget


@dataclass(frozen=True)
class Reach:
    """The least confirmed cost with a mean test accuracy of at least `accuracy`; None: not reached.

    Limited to the configurations that were confirmed.
    """

    method: str
    accuracy: float
    cost: float | None


@dataclass(frozen=True)
class Race:
    """Further units for comparisons that were not separated at the primary budget: seeds, or
    searches."""

    units: int
    """Units of every cell, or of every method, before the race."""
    budget: int
    """Further units that the study allows."""
    spent: int
    undecided: tuple[Comparison, ...]
    """Neighbours in the order, and methods against the baseline, that are still not separated."""
    searches: Mapping[str, int] = field(default_factory=dict)
    """How many searches each method has; empty where they are not repeated."""


@dataclass(frozen=True)
class Board:
    """Everything in the report, in the order of its methods at the primary budget."""

    rules: Rules
    methods: tuple[str, ...]
    passed_over: tuple[Choice, ...]
    """The best configurations on validation at undeclared budgets that were never confirmed."""
    cells: tuple[Cell, ...]
    pairs: tuple[Comparison, ...]
    """All pairs of methods, at every budget; tested at the primary budget alone, as one family."""
    not_worse: tuple[NotWorse, ...]
    """Methods against the baseline, and against themselves with all run or unreduced, at the
    primary budget; empty without a declared margin."""
    unreduced: tuple[Unreduced, ...]
    """Methods compared with their unreduced networks, where those were trained; see
    `Rules.unreduced`."""
    matched: tuple[Matched, ...]
    """At equal cost, where the baseline was confirmed there or below; see `Rules.matched`."""
    reach: tuple[Reach, ...]
    area: dict[str, Summary]
    """Mean best accuracy over log-cost between the least and the largest budget; secondary."""
    attainment: dict[str, Attainment | None]
    """The fronts that one, half and all of a method's seeds attain on test."""
    noise_floor: float | None
    """The largest gap that a control has to its method, as a fraction."""
    race: Race | None
    known: dict[float, Known]
    """The knowledge of the test images, at each budget that has figures."""
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

    @property
    def cost(self) -> Cost:
        return self.rules.cost

    def cell(self, method: str, budget: float) -> Cell:
        return next(c for c in self.cells if c.method == method and c.budget == budget)

    def repeated(self, cell: Cell) -> float | None:
        """The lowest budget at which the method has these same networks; None for that one."""
        for budget in self.budgets:
            if budget >= cell.budget:
                return None
            if cell.seeds and self.cell(cell.method, budget).seeds == cell.seeds:
                return budget
        return None

    def leads(self, cell: Cell) -> bool:
        """Whether no contender has a higher mean at the cell's budget, where several have one."""
        rivals = [self.cell(name, cell.budget).accuracy.mean for name in self.contenders]
        means = [mean for mean in rivals if mean is not None]
        mine = cell.accuracy.mean if cell.method in self.contenders else None
        return len(means) > 1 and mine == max(means)

    def blurred(self, cell: Cell) -> list[str]:
        """What the spread of a timed cell does not separate it from: its budget, or the method's
        cells at the neighbouring budgets; empty where it is clear, or MACs are counted."""
        spent, spread = cell.spent, cell.spread
        if spent is None or spread is None:
            return []
        place = self.budgets.index(cell.budget)
        beside = [self.budgets[i] for i in (place - 1, place + 1) if 0 <= i < len(self.budgets)]
        others = [self.cell(cell.method, budget) for budget in beside]
        near = [
            f"the cell of {self.cost.amount(other.budget)}"
            for other in others
            if other.seeds != cell.seeds
            and other.spent is not None
            and abs(other.spent - spent) < spread
        ]
        return (["its budget"] if abs(cell.budget - spent) < spread else []) + near

    def only(self, methods: Sequence[str]) -> "Board":
        """The board with some of its methods and the baseline; what was tested stays as it is."""
        kept = {*methods, self.baseline}
        return replace(
            self,
            methods=tuple(name for name in self.methods if name in kept),
            passed_over=tuple(choice for choice in self.passed_over if choice.method in kept),
            cells=tuple(cell for cell in self.cells if cell.method in kept),
            pairs=tuple(pair for pair in self.pairs if {pair.method, pair.other} <= kept),
            not_worse=tuple(test for test in self.not_worse if test.method in kept),
            unreduced=tuple(pair for pair in self.unreduced if pair.method in kept),
            matched=tuple(pair for pair in self.matched if pair.method in kept),
            reach=tuple(reach for reach in self.reach if reach.method in kept),
            effort=tuple(effort for effort in self.effort if effort.method in kept),
        )

    @cached_property
    def _compared(self) -> dict[tuple[str, str, float], Comparison]:
        both = (c for pair in self.pairs for c in (pair, pair.reversed))
        return {(c.method, c.other, c.budget): c for c in both}

    def pair(self, method: str, other: str, budget: float) -> Comparison | None:
        """The comparison of two methods, from the side of the first."""
        return self._compared.get((method, other, budget))

    def gain(self, method: str, budget: float) -> Comparison | None:
        """The comparison with the baseline; None for the baseline itself."""
        return self.pair(method, self.baseline, budget)

    @property
    def gains(self) -> tuple[Comparison, ...]:
        """Every method against the baseline, at every budget."""
        gains = (self.gain(name, budget) for budget in self.budgets for name in self.methods)
        return tuple(gain for gain in gains if gain is not None)

    @property
    def contenders(self) -> tuple[str, ...]:
        """The methods without the controls."""
        return tuple(name for name in self.methods if name not in self.rules.controls)

    def searches(self, method: str) -> int:
        """How many searches a method has, those that a race added included."""
        added = self.race.searches if self.race else {}
        return added.get(method, self.rules.repeats)

    @property
    def confirmed(self) -> bool:
        return any(cell.n for cell in self.cells)
