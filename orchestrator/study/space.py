"""A method's annotations, narrowed by the study, as Optuna distributions."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pydantic
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import create_trial

from methods import METHODS
from methods.api import Method, Task
from methods.errors import MethodError, StudyError, nearest
from methods.names import same
from methods.training.recipe import Recipe, check_recipe
from methods.values import Params, Scalar, shown
from orchestrator.study.distributions import (
    Distribution,
    default_range,
    ends,
    inside,
    place,
    ranged,
    rank,
    spread,
)
from orchestrator.study.file import RESERVED, Study
from orchestrator.study.identity import search_name
from orchestrator.study.narrowing import Narrowing
from orchestrator.study.params import (
    ALIAS,
    PREFIX,
    completed,
    flat,
    model_of,
    named,
    original_of,
    parts,
    split,
    unreduced,
)
from orchestrator.study.places import standing
from orchestrator.study.sections import SearchPlan

BATCH = PREFIX + "batch_size"
CORNERS = 256
"""Number of configurations that are priced to find a space's cheapest one."""


@dataclasses.dataclass(frozen=True)
class Space:
    """The space of a method's trials: fixed parameters, and distributions of the others."""

    method: str
    fixed: Params
    free: Mapping[str, Distribution]
    points: Sequence[Params] = ()
    """Configurations that the study tries first, after the defaults."""
    profile: Params = dataclasses.field(default_factory=dict)
    """The paper's settings as defaults, if the study asks for them."""
    opening: Params = dataclasses.field(default_factory=dict)
    """The paper's settings that the study leaves to the method: the parameters of the search's
    first trial, which may lie outside the space. Empty if the search begins with the defaults."""
    repeat: int | None = None
    """Number, from 1 on, of the method's independent search that draws from it; None is the only
    one."""

    @property
    def search(self) -> str:
        """The name of the search that draws from it."""
        return search_name(self.method, self.repeat)

    @property
    def first(self) -> list[dict[str, Scalar]]:
        """The free parameters of the first trials: the defaults, then the study's `points`."""
        defaults = self.defaults()
        return [defaults, *({**defaults, **point} for point in self.points)]

    @property
    def named(self) -> int:
        """How many first trials are the same in every search: as published, and `first`."""
        return len(self.first) + bool(self.opening)

    @property
    def epochs(self) -> int:
        """The length of the longest trial."""
        distribution = self.free.get(PREFIX + "epochs")
        if distribution is None:
            return Recipe.of(split(self.fixed)[1]).epochs
        return max(int(epochs) for epochs in ends(distribution))

    def params(self, searched: Params, *, opening: bool = False) -> dict[str, Scalar]:
        """Every parameter of one trial; see `orchestrator.study.params.flat`."""
        return flat(self.method, {**self.fixed, **searched, **(self.opening if opening else {})})

    def unreduced(self) -> dict[str, Scalar] | None:
        """The parameters of the default configuration's unreduced network; None if it has none."""
        return unreduced(self.method, self.params(self.defaults()))

    def defaults(self) -> dict[str, Scalar]:
        """The free parameters from the profile, else isoflop's defaults; moved into the space if
        they lie outside."""
        return self._inside(self.profile)

    def published(self) -> dict[str, Scalar]:
        """The free parameters from the paper, else isoflop's defaults; moved into the space."""
        return self._inside(model_of(self.method, self.fixed).PUBLISHED)

    def holds(self, searched: Params) -> bool:
        """Whether values lie in their distributions."""
        try:
            space: dict[str, BaseDistribution] = {name: self.free[name] for name in searched}
            create_trial(params=dict(searched), distributions=space, values=[0])
        except (ValueError, TypeError):
            return False
        return True

    def at(self, place: Sequence[float]) -> dict[str, Scalar]:
        """The free parameters at a place of the unit cube, one coordinate each, in [0, 1)."""
        pairs = zip(place, self.free.items(), strict=True)
        return {name: spread(u, distribution) for u, (name, distribution) in pairs}

    def cube(self, searched: Params) -> list[float]:
        """A place of the unit cube at which `at` gives these free parameters."""
        return [rank(searched[name], distribution) for name, distribution in self.free.items()]

    def floor(self, task: Task) -> int:
        """The least MACs of any configuration: smallest numbers, every choice.

        Raises:
            MethodError: the method has no network for this task.
        """
        return self.smallest(task)[0].floor(task)

    def smallest(self, task: Task, count: int = 1) -> list[Method]:
        """The configurations of the least MACs, the least first: the fastest need not be that one.

        Raises:
            MethodError: the method has no network for this task.
        """
        priced = [
            (floor, corner)
            for corner in itertools.islice(self._corners(), CORNERS)
            if (floor := self._floor(corner, task)) is not None
        ]
        priced.sort(key=lambda one: one[0])
        return [self.method_at(c) for _, c in priced[:count]] or [self.method_at(self.defaults())]

    def method_at(self, searched: Params) -> Method:
        """The method at one place in the space.

        Raises:
            MethodError: values that do not go together.
        """
        return parts(self.method, {**self.fixed, **searched})[0]

    def as_recorded(self, params: Params, distributions: Mapping[str, BaseDistribution]) -> "Space":
        """The space of a trial that was recorded; itself, if the trial has all of its parameters.

        A field that an earlier version lacked has the value that reproduces that version.
        """
        if params.keys() >= self.params(self.defaults()).keys():
            return self
        free = {
            name: distribution
            for name, distribution in distributions.items()
            if isinstance(distribution, Distribution)
        }
        whole = completed(self.method, params)
        return dataclasses.replace(
            self, fixed={k: v for k, v in whole.items() if k not in free}, free=free
        )

    def _inside(self, values: Params) -> dict[str, Scalar]:
        """The given values of the free parameters, else isoflop's defaults, moved into the
        space."""
        method, recipe = model_of(self.method, self.fixed), Recipe
        moved = {}
        for name, distribution in self.free.items():
            model: type[pydantic.BaseModel] = recipe if name.startswith(PREFIX) else method
            default = model.model_fields[name.removeprefix(PREFIX)].default
            moved[name] = inside(values.get(name, default), distribution)
        return moved

    def _floor(self, corner: Params, task: Task) -> int | None:
        try:
            return self.method_at(corner).floor(task)
        except MethodError:
            return None

    def _corners(self) -> Iterator[dict[str, Scalar]]:
        lowest = [
            ends(d) if isinstance(d, CategoricalDistribution) else ends(d)[:1]
            for d in self.free.values()
        ]
        for corner in itertools.product(*lowest):
            yield dict(zip(self.free, corner, strict=True))


def spaces(study: Study) -> dict[str, Space]:
    """The space of every method of a study.

    Raises:
        StudyError: an unknown method or field, or a range outside the method's bounds.
    """
    with study.lines():
        return _spaces(study)


def searches(study: Study) -> dict[str, Space]:
    """The space of every search of a study, by the search's name.

    The first searches of all methods come first, then the second ones.

    Raises:
        StudyError: as `spaces`.
    """
    by_method = spaces(study)
    numbers = range(1, study.search.repeats + 1) if study.search.repeats > 1 else (None,)
    repeated = [
        dataclasses.replace(space, repeat=number)
        for number in numbers
        for space in by_method.values()
    ]
    return {space.search: space for space in repeated}


def _spaces(study: Study) -> dict[str, Space]:
    controls = study.controls
    for name in study.methods:
        with standing("methods", name):
            named(study, name)
    for name in study.search.points:
        if name not in study.methods:
            raise StudyError(
                f"search.points: {shown(name)} is no method of this study; "
                f"{nearest(name, list(study.methods))}",
                at=("search", "points", name),
            )
    originals = {
        name: _space(name, fields, study)
        for name, fields in study.methods.items()
        if name not in controls
    }
    _reduced(study, originals)
    return {
        name: _again(originals[controls[name]], name) if name in controls else originals[name]
        for name in study.methods
    }


def _reduced(study: Study, by_method: Mapping[str, Space]) -> None:
    """Check that, if unreduced networks are asked for, a method has some and they can be
    trained."""
    if not study.confirm.unreduced:
        return
    wholes = {name: space.unreduced() for name, space in by_method.items()}
    for name, params in wholes.items():
        if params is not None:
            _takes(name, params)
    if not any(wholes.values()):
        some = [name for name in METHODS.own if METHODS[name]().unreduced() is not None]
        raise StudyError(
            "confirm.unreduced: at least one method must be reduced from a larger network, but "
            f"got {', '.join(by_method)[:200]}; add {' or '.join(some)}, or delete `unreduced`",
            at=("confirm", "unreduced"),
        )


def _again(space: Space, name: str) -> Space:
    """The same space under another name; its trials name the method."""
    original = space.fixed.get(ALIAS, space.method)
    return dataclasses.replace(space, method=name, fixed={**space.fixed, ALIAS: original})


def _space(method: str, entry: Mapping[str, Narrowing], study: Study) -> Space:
    """The space of one entry of a study's methods; fields that it omits come from its profile."""
    recipe = study.recipe
    fields = {name: value for name, value in entry.items() if name not in RESERVED}
    alias = {ALIAS: original_of(study, method)} if ALIAS in entry else {}
    model = named(study, method)
    profile = model.PUBLISHED if "profile" in entry else {}
    settings = {**(model.STARTED if study.start_of(method) else {}), **profile}
    _known(f"method {method!r}", model, fields, ("methods", method))
    _known("the recipe", Recipe, recipe, ("recipe",))
    fixed: dict[str, Scalar] = dict(alias)
    free: dict[str, Distribution] = {}
    for name, field in model.model_fields.items():
        with standing("methods", method, name):
            given = fields.get(name, settings.get(name, default_range(field)))
            place(name, field, given, fixed, free)
    for name, field in Recipe.model_fields.items():
        with standing("recipe", name):
            given = profile.get(PREFIX + name, recipe.get(name))
            place(PREFIX + name, field, given, fixed, free)
    space = Space(method, fixed, free, study.search.points.get(method, ()), profile)
    _in_bounds(space)
    _reachable(space)
    if not profile and study.search.published:
        settled = {*fields, *(PREFIX + name for name in recipe)}
        space = _opened(space, {k: v for k, v in model.PUBLISHED.items() if k not in settled})
    _searched(space, study.search)
    return space


def _searched(space: Space, plan: SearchPlan) -> None:
    """Check that repeated searches have trials beyond those that all of them share."""
    if plan.repeats > 1 and space.free and plan.trials <= space.named:
        raise StudyError(
            f"search: each of {plan.repeats} repeats must choose separate configurations, but all "
            f"{plan.trials} `trials` of {space.method} are fixed in advance (defaults, published "
            f"values, points); write `trials: {space.named + 2}` or more, or name fewer points",
            at=("search", "trials"),
        )


def _opened(space: Space, paper: Params) -> Space:
    """The space with the paper's settings as its first trial, if they differ from the default.

    A larger batch than isoflop's default is left out: it may exceed the study's images.
    """
    fitting = {k: v for k, v in paper.items() if k != BATCH or v <= Recipe().batch_size}  # type: ignore[operator]
    opened = dataclasses.replace(space, opening=fitting)
    params = opened.params(opened.published(), opening=True)
    try:
        parts(space.method, params)
    except MethodError:  # not beside what the study fixes
        return space
    return space if params == space.params(space.defaults()) else opened


def _known(
    owner: str,
    model: type[pydantic.BaseModel],
    fields: Mapping[str, Any],
    place: tuple[str, ...],
) -> None:
    for name in fields:
        if name in model.model_fields:
            continue
        hint = nearest(name, list(model.model_fields))
        if model is not Recipe and name == "start":
            hint = f"trained weights stand apart; write `start: {{{place[-1]}: ...}}` at the end"
        elif model is not Recipe and (shared := same(name, list(Recipe.model_fields))):
            hint = f"all methods share it; write `recipe: {{{shared[0]}: ...}}`"
        raise StudyError(f"{owner} has no field {shown(name)}; {hint}", at=(*place, name))


def _in_bounds(space: Space) -> None:
    """Check that the method accepts both ends of every range."""
    base = {**space.fixed, **space.defaults()}
    for name, distribution in space.free.items():
        for end in ends(distribution):
            _takes(space.method, {**base, name: end})
    _takes(space.method, base)


def _reachable(space: Space) -> None:
    """Check that every configuration to be tried lies in the space."""
    where = f"search.points.{space.method}"
    for index, point in enumerate(space.points):
        for name, value in point.items():
            place = ("search", "points", space.method, index, name)
            if name not in space.free:
                raise StudyError(
                    f"{where}: {shown(name)} is not searched; {nearest(name, list(space.free))}",
                    at=place,
                )
            if not space.holds({name: value}):
                raise StudyError(
                    f"{where}: {name} must lie in the searched range, {ranged(space.free[name])}, "
                    f"but got {shown(value)}",
                    at=place,
                )
        _takes(space.method, {**space.fixed, **space.defaults(), **point})


def _takes(method: str, params: Params) -> None:
    fields, settings = split(params)
    try:
        chosen = model_of(method, params).of(fields)
    except MethodError as error:
        at = ("methods", method, *error.at)
        raise StudyError(f"method {method!r}: {error}", at=at) from None
    try:
        recipe = Recipe.of(settings)
    except MethodError as error:
        raise StudyError(str(error), at=("recipe", *error.at)) from None
    try:
        check_recipe(chosen.phases(), recipe)
    except MethodError as error:
        raise StudyError(f"method {method!r}: {error}", at=("recipe", *error.at)) from None
    phases = len(chosen.phases())
    if recipe.epochs < phases:
        raise StudyError(
            f"method {method!r} trains in {phases} phases and must have at least {phases} epochs, "
            f"but the recipe has {recipe.epochs}; raise `recipe: {{epochs: ...}}`",
            at=("recipe", "epochs"),
        )
