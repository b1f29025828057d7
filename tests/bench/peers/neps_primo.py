"""NePS's PriMO (Basu, Hutter and Stoll, 2025): an initial design by MO-ASHA, then a model.

The published defaults are its prior for the error, at NePS's own confidence; the prior for MACs is
left out. NePS continues promoted trials from their checkpoints, and so does this.
"""

import logging
from typing import Any

import neps
from fields import indices, objectives, searched, value
from neps.optimizers.algorithms import primo
from neps.space import SearchSpace
from neps.space.parameters import HPOCategorical, HPOFloat, HPOInteger

EPOCHS = "fidelity_epochs"
CONFIDENCE = 0.25
"""NePS's 'low', which it takes where no confidence is given."""
AFTER = 10**6
"""Even names from here on are those of trials that the model proposed: NePS gives one name to all
that are asked for while one runs, the latest name and one."""
logging.getLogger("neps").setLevel(logging.ERROR)


class PriMO:
    def __init__(self, space: dict[str, Any], seed: int, trials: int, epochs: int) -> None:
        self.space, self.epochs = space, epochs
        elements = {name: parameter(field) for name, field in space.items()}
        elements[EPOCHS] = HPOInteger(1, epochs, is_fidelity=True)
        defaults = {name: searched(field, field["default"]) for name, field in space.items()}
        self.optimizer = primo(
            SearchSpace(elements),
            prior_centers={"error": defaults},
            prior_confidences={"error": dict.fromkeys(space, CONFIDENCE)},
        )
        self.design = self.optimizer.initial_design_size
        self.neps = neps.AskAndTell(self.optimizer)
        self.names: dict[int, str] = {}
        self.numbers: dict[str, int] = {}
        self.refused: dict[str, list[float]] = {}
        self.whole = False

    def ask(self, trial: int) -> Any:
        # Its model needs a whole trial, which it does not check.
        self.optimizer.initial_design_size = self.design if self.whole else float("inf")
        asked = self.neps.ask()
        while asked.metadata.previous_trial_id in self.refused:  # it would be refused again
            refused = self.refused[asked.metadata.previous_trial_id]
            self.refused[asked.metadata.id] = refused
            self.neps.tell(asked, {"objective_to_minimize": refused})
            asked = self.neps.ask()
        name = asked.metadata.id
        if "_" not in name:
            self.neps.trials.pop(name)
            name = asked.metadata.id = str(AFTER + 2 * trial)
            self.neps.trials[name] = asked
        self.names[trial], self.numbers[name] = name, trial
        before = asked.metadata.previous_trial_id
        if before is not None:
            return self.numbers[before]
        return {name: value(field, asked.config[name]) for name, field in self.space.items()}

    def tell(
        self,
        trial: int,
        params: dict[str, Any],
        epochs: int,
        error: "float | None",
        macs: "float | None",
    ) -> None:
        result = {"objective_to_minimize": objectives(error, macs)}
        self.whole |= error is not None and epochs == self.epochs
        if trial in self.names:
            if error is None:
                self.refused[self.names[trial]] = result["objective_to_minimize"]
            self.neps.tell(self.names[trial], result)
            return
        own = {name: searched(field, params[name]) for name, field in self.space.items()}
        rung = max(self.optimizer.bracket_optimizer.rung_to_fid)
        config = {**own, EPOCHS: self.epochs}
        self.neps.tell_custom(config_id=f"{-trial}_rung_{rung}", config=config, result=result)

    def stop(self, trial: int, epochs: int, error: float, macs: float) -> bool:
        return epochs >= int(self.neps.trials[self.names[trial]].config[EPOCHS])


def parameter(field: dict[str, Any]) -> Any:
    if field["kind"] == "choice":
        return HPOCategorical(field["choices"])
    count = indices(field)
    if count is not None:
        return HPOInteger(0, count - 1)
    kind = HPOInteger if field["kind"] == "int" else HPOFloat
    return kind(field["low"], field["high"], log=field["log"])
