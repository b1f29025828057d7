"""The rules of a board, as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from methods.errors import StudyError
from orchestrator.record.provenance import Provenance
from orchestrator.study.budgets import MACS, Cost
from orchestrator.study.file import Study

BASELINE = "dense"
"""The static network that every method is compared with."""
PAIRS_SHARE = 0.6
"""Share of the level for the tests of pairs, if the tests of being not worse need the rest."""
LOOKS = 3
"""Rounds of a race; the first one is what every study has. The board is evaluated once after each
round, and its tests are corrected for the number of rounds."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of a board: with the same rows and the same rules, every board is the same.

    Raises:
        StudyError: there is no budget, one is not positive, or the primary budget is none of them.
    """

    budgets: tuple[float, ...]
    """Budgets in rising order; other orders and repetitions are corrected."""
    primary: float
    """The budget at which methods are tested, one of `budgets`."""
    cost: Cost = MACS
    """The cost that budgets limit."""
    study: str = ""
    baseline: str = BASELINE
    methods: tuple[str, ...] = ()
    """Methods that are on the board even without a row."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """Methods entered twice: the second name, and the first. They show the noise, and take part in
    no test and no P(best)."""
    targets: tuple[float, ...] = ()
    """Accuracies for which the table of least MACs has columns; by default round ones from the
    data."""
    confidence: float = 0.95
    chance: float = 0.0
    """Accuracy of guessing."""
    images: int | None = None
    """Number of test images, where it is known."""
    shared_images: int = 0
    """Number of test images whose pixels are also in training or validation."""
    seeds: int = 0
    """Seeds that every configuration had before a race began."""
    repeats: int = 1
    """Independent searches of every method, before a race began. With one search, seeds are the
    units and claims are about configurations; with several, searches are the units and claims are
    about methods."""
    matched: bool = False
    """Whether the baseline was confirmed at the cost of each method's choice at the primary budget;
    otherwise the comparison there uses the configurations confirmed for the budgets."""
    unreduced: bool = False
    """Whether the unreduced networks of the methods' choices at the primary budget were trained,
    too."""
    margin: float | None = None
    """How much worse, as a fraction, still counts as not worse; None: that is not tested."""
    extra: int = 0
    """Further units that a race may add: confirm runs of single searches, or whole searches where
    they are repeated; 0: no race."""
    confirmed_for: tuple[float, ...] | None = None
    """Budgets for which configurations were confirmed; by default all. See `choose_confirmed`."""
    declared_primary: float | None = None
    """The primary budget that the study declared, if it is another one."""

    def __post_init__(self) -> None:
        ladder = tuple(sorted({float(budget) for budget in self.budgets}))
        if not ladder or not ladder[0] > 0:
            raise StudyError(
                f"budgets must be positive {self.cost.unit} and at least one, got "
                f"{list(self.budgets)}"
            )
        if self.primary not in ladder:
            raise StudyError(
                f"the primary budget must be one of {list(ladder)}, got {self.primary}"
            )
        object.__setattr__(self, "budgets", ladder)

    @classmethod
    def of(
        cls, study: Study, provenance: Provenance | None = None, *, primary: float | None = None
    ) -> "Rules":
        """The rules that a study declares, tested at another of its budgets if `primary` says so.

        Without a provenance, guessing is never right and the number of test images is not known.
        """
        data = provenance.data if provenance else None
        return cls(
            study=study.name,
            budgets=tuple(study.budgets),
            primary=study.primary_budget if primary is None else primary,
            cost=study.cost,
            declared_primary=study.primary_budget,
            methods=tuple(study.methods),
            controls=study.controls,
            targets=tuple(study.targets),
            chance=1 / provenance.classes if provenance else 0.0,
            images=provenance.test_images if provenance else None,
            shared_images=data.shared_test if data else 0,
            seeds=study.confirm.seeds,
            extra=study.confirm.budget or 0,
            repeats=study.search.repeats,
            matched=study.confirm.matched,
            unreduced=study.confirm.unreduced,
            margin=None if study.margin is None else study.margin / 100,
        )

    @classmethod
    def between(cls, study: Study, provenance: Provenance, budgets: Sequence[float]) -> "Rules":
        """The rules at any budgets.

        At a budget that the study did not declare, the choice is among what it confirmed for
        others. The tests stand at the declared primary budget where that is among them.
        """
        declared = study.primary_budget
        return replace(
            cls.of(study, provenance),
            budgets=tuple(budgets),
            primary=declared if declared in budgets else max(budgets),
            confirmed_for=tuple(study.budgets),
        )

    @property
    def declared(self) -> tuple[float, ...]:
        """Those of the budgets for which configurations were confirmed."""
        if self.confirmed_for is None:
            return self.budgets
        return tuple(budget for budget in self.budgets if budget in self.confirmed_for)

    @property
    def undeclared(self) -> tuple[float, ...]:
        """Budgets for which nothing was confirmed; the choice is among what others confirmed."""
        return tuple(budget for budget in self.budgets if budget not in self.declared)

    @property
    def primary_declared(self) -> bool:
        """Whether the study declared this primary budget; tests at another one are exploratory."""
        return self.declared_primary in (None, self.primary)

    @property
    def looks(self) -> int:
        """Number of evaluations: Bonferroni corrects for them, whichever is the last."""
        return LOOKS if self.extra else 1

    @property
    def alpha(self) -> float:
        """Level of an adjusted p-value, below which a difference is claimed."""
        return 1 - self.confidence

    @property
    def level(self) -> float:
        """Confidence of one look's intervals, so that those of all looks hold with `confidence`."""
        return 1 - self.alpha / self.looks

    @property
    def pairs_weight(self) -> float:
        """Share of `alpha` that the tests of pairs have at one look."""
        return (1.0 if self.margin is None else PAIRS_SHARE) / self.looks

    @property
    def margin_weight(self) -> float:
        """Share of `alpha` that the tests of not being worse have at one look."""
        return (1 - PAIRS_SHARE) / self.looks

    @property
    def unit(self) -> str:
        """The kind of unit: a seed or a search."""
        return "seed" if self.repeats == 1 else "search"

    @property
    def units(self) -> int:
        """Number of units that every cell had before a race began."""
        return self.seeds if self.repeats == 1 else self.repeats
