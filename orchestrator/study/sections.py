"""The sections of a study beside its methods: search, confirm and resources."""

from typing import Annotated, Literal

import pydantic
from pydantic import Field

from methods.values import Scalar
from orchestrator.study.reading import Misfit, Retired, Strict

LEAST_REPEATED = 4
"""Minimal number of trials of a repeated search: samplers spread this many over the space before
they learn, and fewer trials choose among little more than the defaults, which all repeats share."""


class SearchPlan(Strict):
    """How each method's hyperparameters are searched."""

    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Effort of one search, in full-length trials; refused trials do not count."""
    repeats: Annotated[int, Field(ge=1, le=1000, exclude_if=lambda repeats: repeats == 1)] = 1
    """Independent searches of each method, with `trials` trials each. Every search has separate
    seeds, and chooses and confirms separate configurations. Claims about a method need at least 5
    searches; with 1, claims are about the configurations that it chose."""
    seconds: Annotated[
        float | None, Field(gt=0, le=1e9, exclude_if=lambda seconds: seconds is None)
    ] = None
    """Device-seconds per search, in place of `trials`: methods get equal time instead of equal
    epochs, to within one trial. `trials` is then what the samplers expect, and the number of trials
    depends on the machine."""
    sampler: Annotated[
        Literal["auto", "ehvi", "tpe", "random", "sobol"],
        Retired(("gp", "nsga2"), "it gained nothing over the default on any table", "auto"),
    ] = "auto"
    """Sampler of configurations; `auto` is ehvi. `tpe` is Optuna's default, a yardstick."""
    stop: Annotated[
        Literal["none", "promote"],
        Retired(("predictive",), "it gained nothing on any table", "none"),
    ] = "none"
    """Whether trials are stopped early, so that other trials of the same method get their epochs.
    `promote` pauses each trial after a quarter of its epochs; of four trials the two that promise
    most resume."""
    published: Annotated[bool, Field(exclude_if=lambda first: first)] = True
    """Whether the first trial of a method uses its paper's settings, where the study fixes
    nothing."""
    points: dict[str, list[dict[str, Scalar]]] = Field(default_factory=dict)
    """Per method, configurations to try right after its defaults; fields that they omit have the
    default."""
    warm: Annotated[str | None, Field(alias="from")] = None
    """An earlier study on the same data and in the same MLflow store. Its trials within this
    study's spaces inform the samplers, and count neither as effort nor on the board. All repeats of
    a method use the same trials."""

    @pydantic.model_validator(mode="after")
    def _repeats_search(self) -> "SearchPlan":
        if self.repeats > 1 and self.trials < LEAST_REPEATED:
            raise Misfit(
                f"each of {self.repeats} `repeats` must have at least {LEAST_REPEATED} `trials`, "
                f"but got {self.trials}; write `trials: 8`, say, or delete "
                "`repeats`",
                "trials",
            )
        return self


class ConfirmPlan(Strict):
    """How the chosen configurations are retrained before the test split is read."""

    seeds: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Fresh seeds per chosen configuration; with one search, tests need at least 5."""
    matched: Annotated[bool, Field(exclude_if=lambda matched: not matched)] = False
    """Whether dense is also confirmed at the cost of each other method's choice at the primary
    budget, for a comparison at equal MACs."""
    unreduced: Annotated[bool, Field(exclude_if=lambda unreduced: not unreduced)] = False
    """Whether each method's choices at the primary budget are also trained unreduced, on as many
    fresh seeds: ResRep's ResNet without pruning, CondenseNet's DenseNet whole. The method is
    compared with them and, if `margin` is set, tested against them."""
    race: Annotated[bool, Field(exclude_if=lambda race: not race)] = False
    """Whether comparisons that are not separated at the primary budget get further seeds or, if
    searches are repeated, further searches. Intervals and tests are corrected for the repeated
    looks."""
    budget: Annotated[
        int | None, Field(ge=1, le=1_000_000, exclude_if=lambda budget: budget is None)
    ] = None
    """Largest number of additions of a race over all methods: confirm runs if every method has one
    search, or else whole searches, each of `trials` trials and their confirm runs."""

    @pydantic.model_validator(mode="after")
    def _a_budget_is_of_a_race(self) -> "ConfirmPlan":
        if self.budget is not None and not self.race:
            raise Misfit(
                "`budget` limits a race and must stand with `race: true`; add it, or delete "
                "`budget`",
                "budget",
            )
        return self


class Resources(Strict):
    """Resources of one trial, and limits on its starts and its time; not part of the study's hash.

    A proposal uses the trials that ended a fixed number of trials before it. That number follows
    from the number of trials at once in the first run, and stays the same.
    """

    cpu: Annotated[float, Field(gt=0, le=100_000)] = 1
    """CPU cores per worker of a trial; a whole number is also the number of its threads."""
    gpu: Annotated[float, Field(ge=0, le=100_000)] = 0
    """GPUs per trial; a fraction packs several trials on one GPU, and `isoflop plan` proposes
    one. A trial on several GPUs has a worker on each."""
    workers: Annotated[
        int | None, Field(ge=1, le=10_000, exclude_if=lambda workers: workers is None)
    ] = None
    """Processes that train one trial together, each on its part of every batch: the numbers are
    those of one, to rounding. By default as many as the trial has GPUs; without GPUs they compute
    on CPUs."""
    concurrency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Number of trials at once; by default as many as fit."""
    retries: Annotated[int, Field(ge=0, le=1_000_000)] = 2
    """Number of restarts of a trial after its worker or its driver died; each new epoch resets the
    count."""
    timeout: Annotated[float, Field(gt=0, le=1e8)] | None = None
    """Minutes that a trial may train, over all its starts, before it fails. A worker that is silent
    for this long is ended, and its trial restarts. By default there is no limit."""

    @pydantic.model_validator(mode="after")
    def _whole_gpus(self) -> "Resources":
        if self.gpu > 1 and self.gpu != int(self.gpu):
            raise Misfit(f"`gpu` must be at most 1, or whole, but got {self.gpu}", "gpu")
        if self.workers is not None and self.gpu and self.workers != max(1, self.gpu):
            raise Misfit(
                f"each of a trial's workers must have one whole GPU, or none of them any, but got "
                f"(workers={self.workers}, gpu={self.gpu:g}); leave out `workers`, or set `gpu` to "
                f"{self.workers}",
                "workers",
            )
        return self

    @property
    def spread(self) -> int:
        """Number of processes that train one trial together."""
        return self.workers or max(1, int(self.gpu))

    @property
    def worker_gpu(self) -> float:
        """GPUs of each of them, at most 1."""
        return min(1.0, self.gpu)
