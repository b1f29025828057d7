"""What a board depends on beside its rows, as one value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from methods.errors import StudyError
from orchestrator.record.provenance import Provenance
from orchestrator.study.budgets import MACS, Cost
from orchestrator.study.file import Study

BASELINE = "dense"
"""The static network that every method is compared with."""
PAIRS_SHARE = 0.6
"""Of the level, what the tests of pairs keep where not being worse is tested too."""
LOOKS = 3
"""Rounds of a race, the first of which is what every study has. The board looks at the figures once
after each round, and every look costs all of them level."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The rules of a board: with the same rows and the same rules, every board is the same.

    Raises:
        StudyError: there is no budget, one is not positive, or the primary budget is none of them.
    """

    budgets: tuple[float, ...]
    """In rising order; other orders and repetitions are put right."""
    primary: float
    """The budget at which methods are tested, one of `budgets`."""
    cost: Cost = MACS
    """What budgets are spent in."""
    study: str = ""
    baseline: str = BASELINE
    methods: tuple[str, ...] = ()
    """Methods that stand on the board even where they have no row."""
    controls: Mapping[str, str] = field(default_factory=dict)
    """Methods entered twice: the second name, and the first. They give the noise floor, and enter
    no test and no P(best)."""
    targets: tuple[float, ...] = ()
    """Accuracies whose least MACs are tabled; by default round ones that follow the data."""
    confidence: float = 0.95
    chance: float = 0.0
    """Accuracy of guessing."""
    images: int | None = None
    """Number of test images, where it is known."""
    shared_images: int = 0
    """Test images whose pixels also stand in training or validation."""
    seeds: int = 0
    """Seeds that every configuration had before a race began."""
    repeats: int = 1
    """Independent searches of every method, before a race began. Of a single one, seeds are the
    units and claims are of configurations; of several, the searches are the units and claims are of
    methods."""
    matched: bool = False
    """Whether the baseline was confirmed at what each method's choice at the primary budget costs;
    otherwise it is compared there by what was confirmed for the budgets."""
    unreduced: bool = False
    """Whether what the methods' choices at the primary budget are reduced from was trained, too."""
    margin: float | None = None
    """How much worse, as a fraction, still counts as not worse; None: that is not tested."""
    extra: int = 0
    """Further units that a race may give to what is open: confirm runs of single searches, or whole
    searches where they are repeated; 0: no race."""
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
        """How often the units may be looked at: Bonferroni over the looks, whichever is last."""
        return LOOKS if self.extra else 1

    @property
    def alpha(self) -> float:
        """Below this an adjusted p-value claims something."""
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
        """What claims rest on several of."""
        return "seed" if self.repeats == 1 else "search"

    @property
    def units(self) -> int:
        """Of these, what everything had before a race began."""
        return self.seeds if self.repeats == 1 else self.repeats
