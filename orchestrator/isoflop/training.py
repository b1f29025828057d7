"""Training of one method without Ray, a study or a store."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from methods import METHODS
from methods.api import Method
from methods.data.load import Reading
from methods.data.parts import Fit
from methods.errors import MethodError, nearest
from methods.training.loop import Epoch
from methods.training.loop import train as epochs_of
from methods.training.recipe import Recipe
from methods.training.start import fill
from methods.values import Params
from orchestrator.trial.start import read


def train(
    method: str | Method,
    data: str | Path,
    recipe: Recipe | Params,
    *,
    seed: int = 0,
    device: str = "cpu",
    size: int | None = None,
    fit: Fit = "crop",
    resize: int | None = None,
    start: str | Path | None = None,
) -> Iterator[Epoch]:
    """Train a fresh network, one epoch at a time; all randomness derives from `seed`.

    `method` is a method, or the name of one with its defaults; `data` is a data set's name or a
    path; `recipe` may leave fields out. Images are resized to `size` pixels squared, by default to
    the size that all have; `fit` says how: "crop", "pad" or "stretch". With `resize` they are
    brought to that size, of which training cuts out `size` by chance, and evaluation the centre.
    `start` names trained weights: a `.safetensors` file, `timm:NAME`, `trial:STUDY/TRIAL`, or a
    folder of `isoflop train`.

    >>> from methods.dense import Dense
    >>> for epoch in train(Dense(depth=8, width=0.25), "digits", {"epochs": 2}):
    ...     print(epoch.index, epoch.phase_done)
    1 False
    2 True

    Raises:
        MethodError: an unknown method or field, or a value outside its bounds.
        DataError: a data set that cannot be trained on.
        StorageError: trained weights that cannot be read.
        Diverged: a loss or a weight that is not finite.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise MethodError(f"no method is called {method!r}; {nearest(method, list(METHODS))}")
        model = METHODS[method]
        method = model.of(model.STARTED if start is not None else {})
    if not isinstance(recipe, Recipe):
        recipe = Recipe.of(recipe)
    images = Reading(str(data), size, fit, resize).load(seed=seed, device=device)
    begin = None
    if start is not None:
        weights = read(str(start), images.task, folders=[Path.cwd()], out=Path("runs"))
        begin = partial(fill, method=method, weights=weights)
    return epochs_of(method, images, recipe, seed=seed, device=device, start=begin)
