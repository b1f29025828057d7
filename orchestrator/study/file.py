"""The study file: which methods, on what data, at which budgets, with how much effort."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr

from methods.errors import IsoflopError, StudyError
from methods.outside import look_in
from methods.values import Scalar, shown
from orchestrator.study import identity
from orchestrator.study.budgets import Cost, Spendable, cost_of
from orchestrator.study.narrowing import Narrowing, filled, starts_belong
from orchestrator.study.places import Places, place_of_data, place_of_start
from orchestrator.study.reading import Matching, Misfit, Strict, read_as
from orchestrator.study.sections import ConfirmPlan, Resources, SearchPlan

LONGEST_NAME = 47
"""Largest number of characters in the name of a study or a control, which folders and Kubernetes
objects also have."""
CONTROL_NAME = r"[a-z]+(-[a-z]+)*"
PROFILE, RESERVED = "published", ("method", "profile")
"""The word for a paper's settings, and the keys of an entry that are not fields of a method."""


class Study(Strict):
    """One study: everything that decides its numbers."""

    version: Literal[1] = 1
    """Version of this format."""
    name: Annotated[
        str,
        Matching(
            rf"[a-z][a-z0-9-]{{0,{LONGEST_NAME - 1}}}",
            "lower-case letters, digits and dashes, a letter first, at most 47",
        ),
        Field(examples=["mine"]),
    ]
    """Name of the study, in lower-case letters, digits and dashes; also the name of its folder,
    MLflow experiment and Kubernetes objects."""
    data: Annotated[str, AfterValidator(place_of_data), Field(min_length=1, examples=["digits"])]
    """Name of a data set, or a path."""
    size: Annotated[int | None, Field(ge=1, le=4096, exclude_if=lambda size: size is None)] = None
    """Side in pixels to which every image is resized; by default the size that all images have."""
    fit: Annotated[
        Literal["crop", "pad", "stretch"], Field(exclude_if=lambda fit: fit == "crop")
    ] = "crop"
    """How images are resized to `size`: `crop` scales them to cover it and cuts out the centre,
    `pad` scales them to fit and pads them in black, `stretch` scales each side separately."""
    resize: Annotated[int | None, Field(ge=1, le=4096, exclude_if=lambda side: side is None)] = None
    """Side in pixels to which images are brought, and at which they are held, where that is more
    than `size`: training cuts `size` out by chance, as the recipe's `crop` says, evaluation the
    centre. ImageNet's usual numbers are 256 and 224."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed from which all randomness derives."""
    budgets: Annotated[
        list[Annotated[float, Field(gt=0, le=1e9)]],
        Field(min_length=1, max_length=100, examples=[[0.25, 0.5, 1]]),
        Spendable(),
    ]
    """Budgets in million MACs (fvcore FLOPs) per image, inclusive; `{latency_ms: [0.3, 1], batch:
    1}` gives measured milliseconds of one call of the deployed network on `batch` images."""
    primary: float | None = None
    """The budget at which methods are tested against dense; by default the largest."""
    margin: Annotated[
        float | None, Field(gt=0, le=50, exclude_if=lambda margin: margin is None)
    ] = None
    """Percentage points by which a method may be worse than dense and still count as not worse. If
    it is set, this is tested, with two fifths of the level. By default it is not."""
    recipe: dict[str, Narrowing] = Field(default_factory=dict)
    """Training settings shared by all methods; fixed, or opened for search."""
    methods: Annotated[
        dict[str, dict[str, Narrowing]],
        BeforeValidator(filled),
        Field(min_length=1, max_length=100, examples=[{"dense": {}, "skipnet": {}}]),
    ]
    """Per method, the fields to fix or to narrow; all others keep the method's search ranges.
    `dense-again: {method: dense}` is an A/A control: `dense` a second time, with a separate search
    and seeds. `resrep: published` takes the paper's settings, optimiser included;
    `resrep-published: {method: resrep, profile: published}` adds them beside our defaults.
    `senet: {method: "mynets.se:SENet"}` is a class of your own, in a package that is installed or
    lies beside the study."""
    start: Annotated[
        dict[str, Annotated[str, AfterValidator(place_of_start)]],
        Field(exclude_if=lambda start: not start, examples=[{"resrep": "base"}]),
    ] = Field(default_factory=dict)
    """Per method, the trained weights that its trials start from: a `.safetensors` file,
    `timm:NAME`, `trial:STUDY/TRIAL` or a folder of `isoflop train`; or `base`, a plain backbone
    that the study trains once. Methods that are not named start from scratch."""
    base: Annotated[dict[str, Scalar], Field(exclude_if=lambda base: not base)] = Field(
        default_factory=dict
    )
    """Training settings of the bases where they differ from the recipe, such as `epochs`."""
    targets: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], Field(exclude_if=lambda targets: not targets)
    ] = Field(default_factory=list)
    """Accuracies, as fractions, for which the table of least MACs has columns; by default round
    values from the range of the data."""
    search: SearchPlan = SearchPlan()
    confirm: ConfirmPlan = ConfirmPlan()
    resources: Resources = Resources()
    _places: Places = PrivateAttr(default_factory=Places)
    _known_as: str | None = PrivateAttr(default=None)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _defaults_where_empty(cls, fields: Any) -> Any:
        """A section that is empty in the file has its defaults."""
        if not isinstance(fields, dict):
            return fields
        optional = ("recipe", "start", "base", "targets", "search", "confirm", "resources")
        return {
            name: value
            for name, value in fields.items()
            if not (name in optional and value is None)
        }

    @pydantic.model_validator(mode="after")
    def _primary_is_a_budget(self) -> "Study":
        if self.primary is not None and self.primary not in self.budgets:
            raise Misfit(
                f"`primary` must be one of the budgets {shown(list(self.budgets))}, but got "
                f"{self.primary:g}",
                "primary",
            )
        if (rising := sorted(set(self.budgets))) != self.budgets:
            raise Misfit(
                f"budgets must rise, without repeats, but got {shown(list(self.budgets))}; write "
                f"{shown(rising)}",
                "budgets",
            )
        if self.cost.clocked and self.search.stop != "none":
            raise Misfit(
                f"search.stop: `{self.search.stop}` predicts MACs, not milliseconds; delete it, or "
                "give the budgets in million MACs",
                *("search", "stop"),
            )
        return self

    @pydantic.model_validator(mode="after")
    def _a_size_is_cut_out(self) -> "Study":
        if self.resize is None or (self.size is None and self.data == "imagenet"):
            return self
        if self.size is None or self.resize < self.size:
            raise Misfit(
                f"`resize` must be at least the `size` that is cut out, but got "
                f"(resize={self.resize}, size={self.size or 'none'}); write "
                f"{'a `size` beside it' if self.size is None else f'`resize: {self.size}`'}",
                "resize",
            )
        return self

    @pydantic.model_validator(mode="after")
    def _a_race_has_a_start_and_a_budget(self) -> "Study":
        if not self.confirm.race:
            return self
        plan, repeats = self.confirm, self.search.repeats
        if plan.budget is None or plan.budget < 2:
            budget = "none" if plan.budget is None else f"{plan.budget}"
            what, enough = "confirm runs", 12
            if repeats > 1:
                what, enough = f"whole searches of {self.search.trials} trials each", 6
            raise Misfit(
                f"confirm: `race` adds {what} within a `budget`, which must be at least 2 over "
                f"all methods, but got {budget}; write `budget: {enough}`, say",
                *("confirm", "race"),
            )
        if repeats == 1 and plan.seeds < 3:
            raise Misfit(
                "confirm: `race` estimates the spread between the seeds of a cell and needs "
                f"`seeds` to be at least 3, but got {plan.seeds}",
                *("confirm", "seeds"),
            )
        if repeats == 2:
            raise Misfit(
                "search: `race` estimates the spread between the searches of a method and needs "
                "`repeats` to be at least 3, but got 2; write `repeats: 5`, say",
                *("search", "repeats"),
            )
        return self

    @pydantic.model_validator(mode="after")
    def _controls_repeat_a_method(self) -> "Study":
        for name, fields in self.methods.items():
            if (profile := fields.get("profile", PROFILE)) != PROFILE:
                raise Misfit(
                    f"methods.{name}: a method's profile must be `{PROFILE}`, but got "
                    f"{shown(profile)}; leave it out for the defaults",
                    *("methods", name),
                )
            if "method" not in fields:
                continue
            original = fields["method"]
            if ":" in str(original):  # a class of one's own, under a name that the study gives it
                continue
            real = [
                other
                for other, given in self.methods.items()
                if "method" not in given or ":" in str(given["method"])
            ]
            if original not in real and "profile" not in fields:
                raise Misfit(
                    f"methods.{name}: `method` must be another method of this study, "
                    f"{' or '.join(real)[:200]}, but got {shown(original)}",
                    *("methods", name, "method"),
                )
            if "profile" not in fields and (len(fields) > 1 or name in self.search.points):
                raise Misfit(
                    f"methods.{name} repeats {original} unchanged and must have no fields or "
                    f"points; delete them, or set them on {original}",
                    *("methods", name),
                )
            if not re.fullmatch(CONTROL_NAME, name) or len(name) > LONGEST_NAME:
                raise Misfit(
                    f"methods.{name[:60]}: a control's name must have letters and dashes only, "
                    f"{LONGEST_NAME} at most; write `{original}-again`",
                    *("methods", name),
                )
        return self

    @pydantic.model_validator(mode="after")
    def _starts_are_of_methods(self) -> "Study":
        starts_belong(self.methods, self.controls, self.start, self.base)
        return self

    def start_of(self, method: str) -> str | None:
        """What the trials of a method or of a control start from; None for scratch."""
        return self.start.get(self.controls.get(method, method))

    @property
    def controls(self) -> dict[str, str]:
        """Methods entered a second time, to measure the noise: the second name, and the first."""
        return {
            name: str(fields["method"])
            for name, fields in self.methods.items()
            if "method" in fields and "profile" not in fields and ":" not in str(fields["method"])
        }

    @property
    def cost(self) -> Cost:
        """The cost that the budgets limit."""
        return cost_of(self.budgets)

    @property
    def primary_budget(self) -> float:
        """The declared primary budget, in the unit of the budgets."""
        return self.budgets[-1] if self.primary is None else self.primary

    @property
    def hash(self) -> str:
        """Twelve hex digits of everything that decides the study's numbers."""
        return self._known_as or identity.canonical(self._content)

    @property
    def _content(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"resources"})

    def known_as(self, name: str) -> Self:
        """The study under the hash that an earlier version gave it, if `name` is that."""
        if name == self.hash or name != identity.as_written(self._content):
            return self
        study = self.model_copy()
        study._known_as = name
        return study

    @contextlib.contextmanager
    def lines(self, *at: str) -> Iterator[None]:
        """Prefix the message of an error with file and line: the error's place, or else `at`.

        An error without a place is unchanged if `at` is not given.
        """
        try:
            yield
        except IsoflopError as error:
            error.at = error.at or at
            prefix = self._places.prefix(error.at) if error.at else ""
            if prefix and not str(error).startswith(self._places.file):
                error.args = (f"{prefix}{error}",)
            raise

    @classmethod
    def read(cls, path: Path) -> Self:
        """The study in a YAML file.

        Raises:
            StudyError: no such file, no YAML, or a field that cannot be as written.
        """
        fields, places = read_as(Study, path, what="a study", error=StudyError)
        study = cls.model_construct(fields.model_fields_set, **dict(fields))
        study._places = places
        look_in(path.parent)
        return study


def load(path: str | Path) -> Study:
    """The study in a YAML file; see `Study.read`."""
    return Study.read(Path(path))
