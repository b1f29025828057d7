"""The study file: which methods, on what data, at which budgets, with how much effort."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from methods.errors import StudyError
from methods.files import digest
from orchestrator.study.reading import Location, Strict, mapping, numbers, sentence

Scalar = bool | int | float | str


class Range(Strict):
    """Numbers from `low` to `high`, both included."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not self.low <= self.high:
            raise ValueError(f"`low <= high` must hold, but got (low={self.low}, high={self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range must start above 0, but got low={self.low}")
        if self.log and self.step is not None:
            raise ValueError("a range is either log or stepped, not both")
        return self


class Choices(Strict):
    """One of a closed list of values."""

    choices: Annotated[list[Scalar], Field(min_length=1)]


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "choices" if "choices" in value else "range"
    if isinstance(value, Choices):
        return "choices"
    return "range" if isinstance(value, Range) else "fixed"


Narrowing = Annotated[
    Annotated[Range, pydantic.Tag("range")]
    | Annotated[Choices, pydantic.Tag("choices")]
    | Annotated[Scalar, pydantic.Tag("fixed")],
    pydantic.Discriminator(_kind),
]
"""A fixed value, a range, or a list of choices."""


class SearchPlan(Strict):
    """How each method's hyperparameters are searched."""

    trials: Annotated[int, Field(ge=1)] = 20
    """Effort per method, in trials of full length; refused ones come on top."""
    seconds: Annotated[float | None, Field(gt=0, exclude_if=lambda seconds: seconds is None)] = None
    """Device-seconds per method, in place of `trials`: methods get equal time instead of equal
    epochs, to within a trial. `trials` is then what the samplers expect, and how many trials there
    are depends on the machine."""
    sampler: Literal["auto", "ehvi", "tpe", "gp", "nsga2", "random", "sobol"] = "auto"
    """`auto` is gp under 32 trials per method, tpe from there on."""
    stop: Literal["none", "predictive"] = "none"
    """`predictive` ends trials that the front is not likely to take in; their epochs go to others
    of the same method."""
    points: dict[str, list[dict[str, Scalar]]] = Field(default_factory=dict)
    """Per method, places to try right after its published defaults; what they leave out has the
    default."""
    warm: Annotated[str | None, Field(alias="from")] = None
    """An earlier study on the same data, in the same MLflow store: its trials that lie in this
    study's spaces teach the samplers, and count neither as effort nor on the board."""


class ConfirmPlan(Strict):
    """How the chosen configurations are retrained before the test split is read."""

    seeds: Annotated[int, Field(ge=1)] = 5
    """Fresh seeds per chosen configuration; groups need at least 5."""
    race: Annotated[bool, Field(exclude_if=lambda race: not race)] = False
    """Whether cells whose order at the primary budget is open then get further seeds; intervals and
    tests are corrected for the looks that this takes."""
    budget: Annotated[int | None, Field(ge=1, exclude_if=lambda budget: budget is None)] = None
    """Further confirm runs of a race, over all methods."""

    @pydantic.model_validator(mode="after")
    def _race_has_a_budget(self) -> "ConfirmPlan":
        if self.race and (self.budget is None or self.budget < 2):
            found = "none" if self.budget is None else f"{self.budget}"
            raise ValueError(
                "`race` adds confirm runs within a `budget`, 2 at least over all methods, but got "
                f"{found}; write `budget: 12`, say"
            )
        if self.race and self.seeds < 3:
            raise ValueError(
                "`race` looks at the spread of the seeds that every cell has, and needs `seeds` to "
                f"be 3 at least, but got {self.seeds}"
            )
        if self.budget is not None and not self.race:
            raise ValueError("`budget` is what a race may spend; write `race: true` beside it")
        return self


class Resources(Strict):
    """What one trial takes, and how often and how long it may; no part of the study's hash.

    How many trials run at once decides how far back a proposal sees: the first run's number stands.
    """

    cpu: Annotated[float, Field(gt=0)] = 1
    """CPU cores per trial; whole numbers also set its threads."""
    gpu: Annotated[float, Field(ge=0)] = 0
    """GPUs per trial; a fraction packs several trials on one: `isoflop plan` measures which."""
    concurrency: Annotated[int, Field(ge=1)] | None = None
    """Trials at once; by default as many as fit."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Starts that a trial is given again after its worker or its driver died; a new epoch gives it
    all of them anew."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Minutes that a trial may take, over all its starts; by default as many as it needs."""

    @pydantic.model_validator(mode="after")
    def _whole_gpus(self) -> "Resources":
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise ValueError(f"`gpu` must be at most 1, or whole, but got {self.gpu}")
        return self


class Study(Strict):
    """One study: everything that decides its numbers."""

    version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,46}$")]
    """Lower-case letters, digits and dashes: folder, MLflow experiment and Kubernetes name."""
    data: Annotated[str, Field(min_length=1)]
    """A data set's name or a path."""
    seed: Annotated[int, Field(ge=0)] = 0
    """All randomness derives from it."""
    budgets: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """Budgets in million MACs (fvcore FLOPs) per image, inclusive."""
    primary: float | None = None
    """The budget at which methods are tested against dense; by default the largest."""
    recipe: dict[str, Narrowing] = Field(default_factory=dict)
    """Training settings shared by all methods; fixed, or opened for search."""
    methods: Annotated[dict[str, dict[str, Narrowing]], Field(min_length=1)]
    """Per method, the fields to fix or narrow; the rest has the method's own ranges. `dense-again:
    {method: dense}` is an A/A control: `dense` once more, with a search and seeds of its own."""
    targets: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], Field(exclude_if=lambda targets: not targets)
    ] = Field(default_factory=list)
    """Accuracies, as fractions, whose least MACs are tabled; by default round ones of the data's
    range."""
    search: SearchPlan = SearchPlan()
    confirm: ConfirmPlan = ConfirmPlan()
    resources: Resources = Resources()

    @pydantic.model_validator(mode="after")
    def _primary_is_a_budget(self) -> "Study":
        if self.primary is not None and self.primary not in self.budgets:
            raise ValueError(
                f"`primary` must be one of the budgets {self.budgets}, but got {self.primary}"
            )
        if sorted(set(self.budgets)) != self.budgets:
            raise ValueError(f"budgets must rise, without repeats, but got {self.budgets}")
        return self

    @pydantic.model_validator(mode="after")
    def _controls_repeat_a_method(self) -> "Study":
        for name, own in self.methods.items():
            if "method" not in own:
                continue
            original = own["method"]
            real = [other for other, fields in self.methods.items() if "method" not in fields]
            if original not in real:
                raise ValueError(
                    f"methods.{name}: `method` must be another method of this study, "
                    f"{' or '.join(real)}, but got {original!r}"
                )
            if len(own) > 1 or name in self.search.points:
                raise ValueError(
                    f"methods.{name} repeats {original} as it is; its fields and points stand there"
                )
            if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name):
                raise ValueError(f"methods.{name}: a control's name has letters and dashes only")
        return self

    @property
    def controls(self) -> dict[str, str]:
        """Methods entered a second time, for the noise floor: the second name, and the first."""
        return {name: str(own["method"]) for name, own in self.methods.items() if "method" in own}

    @property
    def primary_budget(self) -> float:
        """The declared primary budget, in million MACs."""
        return self.budgets[-1] if self.primary is None else self.primary

    @property
    def hash(self) -> str:
        """Twelve hex digits of all that decides the study's numbers."""
        content = self.model_dump(mode="json", exclude={"resources"})
        return digest(json.dumps(content, sort_keys=True))[:12]


def load(path: str | Path) -> Study:
    """The study in a YAML file.

    Raises:
        StudyError: no such file, no YAML, or a field that cannot be as written.
    """
    content = mapping(Path(path), "a study file", StudyError)
    try:
        return Study.model_validate(numbers(content))
    except pydantic.ValidationError as error:
        raise StudyError(f"{path}: {sentence(error, siblings)}") from None


def siblings(loc: Location) -> list[str]:
    """The fields that are valid where a location of a study file ends."""
    parts: dict[str, type[Strict]] = {
        "search": SearchPlan,
        "confirm": ConfirmPlan,
        "resources": Resources,
        "range": Range,
        "choices": Choices,
    }
    owners = [parts[part] for part in loc[:-1] if isinstance(part, str) and part in parts]
    fields = (owners[-1] if owners else Study).model_fields
    return [field.alias or name for name, field in fields.items()]


def cap(budget: float) -> float:
    """The budget in MACs; rounded, since 0.57 * 1e6 lies below 570,000."""
    return round(budget * 1e6, 3)
