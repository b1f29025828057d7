"""Tables that are rendered from the code when the site is built, so that they cannot go stale.

A page asks for one with a line such as `<!-- generated: study -->`; the names are those of TABLES.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import typer

from isoflop.shipped import chart_folder
from methods import METHODS
from methods.training.recipe import Recipe
from methods.values import shown
from orchestrator.cli import app
from orchestrator.kube.cluster import Cluster
from orchestrator.study.distributions import described
from orchestrator.study.file import Study

Schema = Mapping[str, Any]
WORDS = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
}
MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: object) -> str:
    """MkDocs calls this with the text of each page.

    Raises:
        KeyError: a page asks for a table that does not exist.
    """
    return MARK.sub(_rendered, markdown)


def study() -> str:
    """Every field of a study file, a section for each of its parts."""
    return "\n".join(_sections(Study.model_json_schema(), "The study"))


def cluster() -> str:
    """Every field of a cluster file."""
    return "\n".join(_sections(Cluster.model_json_schema(), "The cluster file"))


def recipe() -> str:
    """Every training setting that a study's `recipe` may fix or search."""
    return "\n".join(_fields(Recipe.model_json_schema(), {}))


def methods() -> str:
    """Each method: its paper, how it deviates, and its hyperparameters."""
    return "\n".join(line for name in METHODS.own for line in _method(name))


def commands() -> str:
    """Each command with its arguments and options."""

    group: Any = typer.main.get_command(app)
    return "\n".join(line for command in group.commands.values() for line in _command(command))


def values() -> str:
    """The values of the Helm chart, which describe themselves."""
    return f"```yaml\n{(chart_folder() / 'values.yaml').read_text()}```"


TABLES: dict[str, Callable[[], str]] = {
    "study": study,
    "cluster": cluster,
    "recipe": recipe,
    "methods": methods,
    "commands": commands,
    "values": values,
}


def _rendered(mark: re.Match[str]) -> str:
    """The table in a block with its name, by which site.css lays it out on a narrow screen."""
    return f'<div class="reference {mark[1]}" markdown>\n\n{TABLES[mark[1]]()}\n\n</div>'


def _sections(schema: Schema, title: str) -> Iterator[str]:
    parts = schema.get("$defs", {})
    yield from (f"### {title}", "")
    yield from _fields(schema, parts)
    for name in sorted(parts, key=lambda name: str(schema["properties"]).find(f"/{name}'")):
        part = parts[name]
        if part.get("properties"):
            yield from (f"### {_heading(name)}", "", " ".join(part["description"].split()), "")
            yield from _fields(part, parts)


def _fields(schema: Schema, parts: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    rows = [("field", "value", "default", "meaning")]
    for name, field in schema["properties"].items():
        default = "required" if name in required else _default(field)
        meaning = field.get("description", "") or _opening(field, parts)
        rows.append((f"`{name}`", _kind(field, parts), default, meaning))
    described = any(meaning for *_, meaning in rows[1:])
    rows = rows if described else [row[:-1] for row in rows]
    yield from (_row(*rows[0]), "|---" * len(rows[0]) + "|")
    yield from (_row(*row) for row in rows[1:])
    yield ""


def _opening(field: Schema, parts: Schema) -> str:
    """The first paragraph of the description of a part of the file."""
    name = field.get("$ref", "").rpartition("/")[2]
    return str(parts.get(name, {}).get("description", "")).partition("\n\n")[0]


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    if value is None or value in ({}, []) or "$ref" in field or isinstance(value, dict):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(field: Schema, parts: Schema) -> str:
    """A field's type and bounds in words."""
    if "$ref" in field:
        return _named(field["$ref"].rpartition("/")[2], parts)
    choices = [field["const"]] if "const" in field else field.get("enum")
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if variants := field.get("anyOf") or field.get("oneOf"):
        return _one_of(variants, parts)
    return _simple(field, parts)


def _named(name: str, parts: Schema) -> str:
    """A part of the file: a link to its section, or, if it has no fields, what it is."""
    heading = _heading(name)
    if parts[name].get("properties"):
        return f"[{heading}](#{heading.lower().replace(' ', '-')})"
    return _kind(parts[name], parts)


def _one_of(variants: Sequence[Schema], parts: Schema) -> str:
    kinds = [_kind(variant, parts) for variant in variants if variant.get("type") != "null"]
    if set(WORDS.values()) <= set(kinds):
        kinds = ["one value", *(kind for kind in kinds if kind.startswith("["))]
    return " or ".join(dict.fromkeys(kinds))


def _simple(field: Schema, parts: Schema) -> str:
    kind = field.get("type", "any value")
    if kind == "array":
        return f"list of {_kind(field.get('items', {}), parts)}"
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"mapping of {_kind(inner, parts)}" if isinstance(inner, dict) else "mapping"
    return WORDS.get(kind, kind) + _bounds(field)


def _bounds(field: Schema) -> str:
    """The least and the greatest value, both included unless a sign says otherwise."""
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f", {_number(low)} to {_number(high)}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(
        f", {sign}\u00a0{_number(field[key])}" for key, sign in signs.items() if key in field
    )


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _heading(name: str) -> str:
    """SearchPlan -> Search plan."""
    words = re.findall(r"[A-Z]+[a-z]*", name)
    return " ".join([words[0], *(word.lower() for word in words[1:])])


def _method(name: str) -> Iterator[str]:

    method = METHODS[name]
    first, _, rest = inspect.cleandoc(method.__doc__ or "").partition("\n")
    yield from (f"## {name}", "", first, "")
    for paragraph in rest.strip().split("\n\n"):
        yield from (re.sub(r":\n- ", ":\n\n- ", paragraph), "")
    yield "| field | value | default | searched by default | meaning |"
    yield "|---|---|---|---|---|"
    schema = method.model_json_schema()
    for field, info in method.model_fields.items():
        kind = _kind(schema["properties"][field], schema.get("$defs", {}))
        default = info.default if isinstance(info.default, str) else shown(info.default)
        yield _row(f"`{field}`", kind, f"`{default}`", described(info), info.description or "")
    yield ""
    if method.PUBLISHED:
        settings = ", ".join(f"`{key}: {shown(value)}`" for key, value in method.PUBLISHED.items())
        yield from (f"`{name}: published` sets {settings}.", "")


def _command(command: Any) -> Iterator[str]:
    arguments = [param for param in command.params if not param.opts[0].startswith("-")]
    words = [
        param.name.upper() if param.required else f"[{param.name.upper()}]" for param in arguments
    ]
    first, *rest = command.help.strip().split("\n\n")
    yield from (f"### isoflop {command.name}", "", "```")
    yield from (" ".join(["isoflop", command.name, *words, "[OPTIONS]"]), "```", "")
    yield from (first, "")
    for paragraph in rest:
        yield from (paragraph, "")
    yield "| argument or option | default | meaning |"
    yield "|---|---|---|"
    for param in command.params:
        is_argument = param in arguments
        shown = param.name.upper() if is_argument else ", ".join(param.opts)
        help_ = param.help or ""
        if param.envvar:
            help_ += f" Environment variable: `{param.envvar}`."
        yield _row(f"`{shown}`", "required" if param.required else _option_default(param), help_)
    yield ""


def _option_default(param: Any) -> str:
    if isinstance(param.show_default, str):
        return param.show_default
    if param.default is None or param.default is False:
        return ""
    return f"`{param.default}`"


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
