"""Typer's own errors in the style of all others: one line that says what to write."""

import re
from typing import Any, Protocol, runtime_checkable

import typer

from methods.names import similar


@runtime_checkable
class Usage(Protocol):
    """An error of the parser; which package defines it depends on Typer's version."""

    exit_code: int
    message: str

    def format_message(self) -> str: ...


def line(error: Usage) -> str:
    """The line that the command prints for a parser's error; a call without arguments gets the
    help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return error.format_message()
    return f"isoflop: {explained(error)}"


def explained(error: Usage) -> str:
    """A parser's error in one line: what must hold, what was given, and a correction."""
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "isoflop")
    return f"{_sentence(error, context, command)}; `{command} --help` lists all"


def _sentence(  # noqa: PLR0911  # a return for each kind of mistake
    error: Usage, context: typer.Context | None, command: str
) -> str:
    from methods.values import joined

    name, words = _named(getattr(error, "param", None)), error.message
    option = str(getattr(error, "option_name", ""))[:60]
    match type(error).__name__:
        case "NoSuchOption":
            near = similar(option, _options(context))
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"{command} has no option {option}{hint}"
        case "MissingParameter":
            meaning = _lowered(getattr(error.param, "help", None) or "")  # type: ignore[attr-defined]
            return f"{name} must be given" + (f": {meaning}" if meaning else "")
        case "BadParameter":
            return joined(name, _bad(error))
        case "BadOptionUsage" if "requires an argument" in words:
            return f"{option} must have a value, but got none"
        case "BadOptionUsage" if "does not take a value" in words:
            return f"{option} must have no value, but got one"
    if unknown := re.search(r"No such command '(.*?)'\.", words):
        near = similar(unknown[1], list(getattr(getattr(context, "command", None), "commands", ())))
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"isoflop has no command {unknown[1][:60]!r}{hint}"
    if extra := re.search(r"unexpected extra argument\S* \((.*)\)", words, re.DOTALL):
        return f"{command} must have no further arguments, but got {extra[1][:100]}"
    return _lowered(error.format_message())


def _named(parameter: Any) -> str:
    """The name of an option, or of an argument as the help has it."""
    options = getattr(parameter, "opts", None) or ["a value"]
    return max(options, key=len) if options[0].startswith("-") else str(options[0]).upper()


def _options(context: typer.Context | None) -> list[str]:
    parameters = context.command.params if context else []
    return [name for each in parameters for name in each.opts if name.startswith("--")]


def _bad(error: Usage) -> str:
    """What is wrong with a value: Typer has it from pydantic, or from Click."""
    from pydantic import ValidationError

    from methods.values import mistake

    cause = getattr(error, "__cause__", None)
    words = mistake(cause.errors()[0]) if isinstance(cause, ValidationError) else error.message
    if other := re.fullmatch(r"(.*) is not (?:one of|in the range) (.*?)\.?", words, re.DOTALL):
        return f"must be one of {other[2]}, but got {other[1][:60]}"
    return _lowered(words)


def _lowered(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
