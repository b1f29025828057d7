"""The commands that list the methods and train one by hand."""

import inspect
import shlex
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from methods.errors import MethodError
from orchestrator.cli.console import (
    AsCsv,
    AsJson,
    Fit,
    Resize,
    Size,
    console,
    for_programs,
    method_names,
    near,
    print_frame,
)
from orchestrator.report.table import table, text


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show the hyperparameters of this method.", autocompletion=method_names
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """List the methods, or the hyperparameters of one method with defaults and search ranges."""
    from methods import METHODS
    from methods.errors import nearest

    if name is not None and name not in METHODS:
        raise MethodError(f"no method is called {name!r}; {nearest(name, list(METHODS))}")
    if for_programs(as_json=as_json, as_csv=as_csv):
        import pandas as pd

        names, refused = _listed()
        rows = [_summary(each) for each in names] if name is None else _fields(name)
        facts: dict[str, object] = {"refused": refused} if refused else {}
        if name is not None:
            facts = {**_summary(name), "published": METHODS[name].PUBLISHED}
        word = "methods" if name is None else "fields"
        print_frame(pd.DataFrame(rows), word, facts, as_json=as_json)
        return
    _methods_table() if name is None else _method_card(name)


def train(  # noqa: PLR0917
    method: Annotated[
        str,
        typer.Argument(
            help="Train this method; `isoflop methods` lists them.", autocompletion=method_names
        ),
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set a field of the method, or recipe.FIELD, as field=value. Repeat it "
            "for several fields.",
        ),
    ] = None,
    data: Annotated[str, typer.Option(help="Train on this data set, a name or a path.")] = "digits",
    epochs: Annotated[int, typer.Option(help="Train for this many epochs.", min=1)] = 20,
    seed: Annotated[int, typer.Option(help="Derive all randomness from this number.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="Train on cpu, cuda or cuda:N.")] = "cpu",
    size: Size = None,
    fit: Fit = "crop",
    resize: Resize = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published", help="Use the settings of the method's paper, optimiser included."
        ),
    ] = False,
    start: Annotated[
        str,
        typer.Option(
            help="Start from trained weights: a .safetensors file, timm:NAME, trial:STUDY/TRIAL, "
            "or a folder of an earlier `isoflop train`."
        ),
    ] = "",
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Write the weights and the evidence to this folder.",
            show_default="runs/trained/NAME",
        ),
    ] = None,
    discard: Annotated[
        bool, typer.Option("--discard", help="Write nothing, and do not read the test split.")
    ] = False,
) -> None:
    """Train one method without a study, print its curve and operating points, and save its
    networks."""
    from methods.data.load import Reading
    from orchestrator.trial.byhand import by_hand

    folders: list[Path] = []

    def place(name: str) -> Path:
        folders.append(keep or Path("runs") / "trained" / name)
        return folders[0]

    images = Reading(data, size, fit, resize)
    lines = by_hand(
        method,
        set_ or [],
        data=images,
        epochs=epochs,
        seed=seed,
        device=device,
        published=published,
        start=start,
        keep=None if discard else place,
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    if folders:
        folder = shlex.quote(str(near(folders[0])))
        console.print(f"Saved:   {folder}", highlight=False, markup=False, soft_wrap=True)
        console.print(
            f"Export:  isoflop export {folder}", highlight=False, markup=False, soft_wrap=True
        )


def _summary(name: str) -> dict[str, str]:
    """What a method is, and which of its fields are searched by default."""
    from methods import METHODS

    searched = ", ".join(field for field, span in _searched(name).items() if span)
    return {"method": name, "what": _card(METHODS[name])[0], "searched": searched}


def _fields(name: str) -> list[dict[str, str]]:
    """A method's hyperparameters: default, search range and meaning."""
    from methods import METHODS

    spans = _searched(name)
    return [
        {
            "field": field,
            "default": (
                f"{info.default:.3g}" if isinstance(info.default, float) else str(info.default)
            ),
            "searched": spans[field],
            "meaning": " ".join((info.description or "").split()),
        }
        for field, info in METHODS[name].model_fields.items()
    ]


def _listed() -> tuple[list[str], list[str]]:
    """The methods that can be used, and a sentence on each registered one that cannot."""
    from methods import METHODS
    from methods.outside import registered

    names, refused = [], []
    for name in METHODS:
        try:
            METHODS[name]
        except MethodError as error:
            refused.append(f"{name}: {error}")
        else:
            names.append(name)
    for name, points in registered().items():
        if name in METHODS.own:
            refused.append(
                f"{name} is a method of isoflop, so {points[0].value} must have another name; "
                f"`{name}-of-mine: {{method: {points[0].value}}}` in a study gives it one"
            )
    return names, refused


def _methods_table() -> None:
    grid = table("method", "description", "searched")
    names, refused = _listed()
    for name in names:
        grid.add_row(*_summary(name).values())
    console.print(grid)
    for sentence in refused:
        console.print(f"Refused: {sentence}", highlight=False, markup=False, soft_wrap=True)
    console.print("`isoflop methods NAME` shows a method's hyperparameters and what it costs.")


def _method_card(name: str) -> None:
    from methods import METHODS
    from methods.api import Task
    from methods.values import shown

    method = METHODS[name]
    for line in _card(method):
        hanging = "  " if line.startswith("- ") else ""
        wrapped = textwrap.fill(line, console.width, subsequent_indent=hanging)
        console.print(wrapped, highlight=False, markup=False)
    grid = table(text("field", wrap=False), "default", "searched", "meaning")
    for field in _fields(name):
        grid.add_row(*field.values())
    console.print(grid)
    if method.PUBLISHED:
        settings = ", ".join(f"{field}={shown(value)}" for field, value in method.PUBLISHED.items())
        console.print(
            f"As published: {settings}. `{name}: published` in a study and `isoflop train {name} "
            "--published` take these.",
            highlight=False,
        )
    for task in (Task("digits", 1, 8, 8, 10), Task("cifar10", 3, 32, 32, 10)):
        floor = method().floor(task) / 1e6
        console.print(f"Least cost of the defaults on {task.name}: {floor:.4g} MMACs per image")


def _card(method: type) -> list[str]:
    """A method's docstring, each paragraph and each item of a list as one line."""
    lines: list[str] = []
    for line in inspect.cleandoc(method.__doc__ or "").splitlines():
        if lines and lines[-1] and line and not line.startswith("- "):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return lines


def _searched(name: str) -> dict[str, str]:
    from methods import METHODS
    from orchestrator.study.distributions import described

    return {field: described(info) for field, info in METHODS[name].model_fields.items()}
