"""SMAC's ParEGO with Hyperband: random forests of weighted objectives, budgets of epochs.

SMAC knows no checkpoints: a promoted configuration trains from its first epoch, as in its papers.
"""

import sys
from pathlib import Path
from typing import Any

from ConfigSpace import Categorical, Configuration, ConfigurationSpace, Float, Integer
from fields import indices, objectives, searched, value
from smac import MultiFidelityFacade, Scenario
from smac.multi_objective.parego import ParEGO as Weights
from smac.runhistory.dataclasses import TrialInfo, TrialValue

EVALUATIONS = 3
"""At all budgets for each whole trial: some 2.5 in the brackets of 25 epochs. It limits SMAC's
initial design alone."""


class ParEGO:
    def __init__(self, space: dict[str, Any], seed: int, trials: int, epochs: int) -> None:
        self.space, self.epochs = space, epochs
        self.infos: dict[int, TrialInfo] = {}
        configspace = ConfigurationSpace(seed=seed % 2**31)
        configspace.add([parameter(name, field) for name, field in space.items()])
        scenario = Scenario(
            configspace,
            deterministic=True,
            objectives=["error", "macs"],
            n_trials=EVALUATIONS * trials,
            min_budget=1,
            max_budget=epochs,
            seed=seed % 2**31,
            output_directory=Path(sys.prefix) / "output",
        )
        self.smac = MultiFidelityFacade(
            scenario,
            never_called,
            multi_objective_algorithm=Weights(scenario),
            logging_level=False,
            overwrite=True,
        )

    def ask(self, trial: int) -> Any:
        self.infos[trial] = info = self.smac.ask()
        return {name: decoded(field, info.config[name]) for name, field in self.space.items()}

    def tell(
        self,
        trial: int,
        params: dict[str, Any],
        epochs: int,
        error: "float | None",
        macs: "float | None",
    ) -> None:
        info = self.infos.get(trial)
        if info is None:
            values = {name: encoded(field, params[name]) for name, field in self.space.items()}
            config = Configuration(self.smac.scenario.configspace, values=values)
            info = TrialInfo(config, seed=0, budget=float(self.epochs))
        self.smac.tell(info, TrialValue(objectives(error, macs)), save=False)

    def stop(self, trial: int, epochs: int, error: float, macs: float) -> bool:
        return epochs >= max(1, int(self.infos[trial].budget))


def never_called(config: Configuration, seed: int, budget: float) -> None:
    """What SMAC would minimise; it is asked and told instead."""


def parameter(name: str, field: dict[str, Any]) -> Any:
    if field["kind"] == "choice":
        return Categorical(name, [str(index) for index in range(len(field["choices"]))])
    count = indices(field)
    if count is not None:
        return Integer(name, (0, count - 1))
    kind = Integer if field["kind"] == "int" else Float
    return kind(name, (field["low"], field["high"]), log=field["log"])


def decoded(field: dict[str, Any], own: Any) -> Any:
    return field["choices"][int(own)] if field["kind"] == "choice" else value(field, own)


def encoded(field: dict[str, Any], own: Any) -> Any:
    return str(field["choices"].index(own)) if field["kind"] == "choice" else searched(field, own)
