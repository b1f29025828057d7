"""Two studies on the same data, compared method by method."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from methods.data.digest import Digest
from methods.errors import StudyError
from orchestrator.board.model import Board, Cell, Comparison
from orchestrator.board.stats.contrasts import contrast
from orchestrator.board.stats.families import holm
from orchestrator.board.stats.units import Units
from orchestrator.board.verdict import notes
from orchestrator.record.provenance import Provenance, encode_provenance
from orchestrator.study.file import Study

DATA = "data_sha256"
"""The field that names the images read, those for training included."""
RECIPE = ("recipe", "seed", "methods", "search", "confirm", DATA)
"""Fields of a study that decide its numbers beside data and budgets."""
TASK = ("classes", "image")
"""What must be equal for two test accuracies to be of one task."""
TEST = ("data", *TASK, "test_images")
"""The same, where the studies did not record which images they read."""


@dataclass(frozen=True)
class Side:
    """One of the two studies."""

    study: Study
    provenance: Provenance
    board: Board


@dataclass(frozen=True)
class Versus:
    """Test accuracy of the second study less that of the first, method by method."""

    first: Side
    second: Side
    methods: tuple[str, ...]
    """Those that both have."""
    differences: tuple[Comparison, ...]
    """The comparison of each shared method at each budget, with Holm's correction over all of them;
    `other` is the first study."""
    unlike: tuple[tuple[str, str, str], ...]
    """Field, and its value in each study: all that differs between the two, results aside."""
    notes: tuple[str, ...]
    exploratory: bool
    """Whether more differs than the code and the machine."""


def versus(first: Side, second: Side, confidence: float = 0.95) -> Versus:
    """Two studies compared; each keeps its own choice of configurations.

    Seeds are not paired: one seed number shares nothing between two configurations.

    Raises:
        StudyError: they are not on the same data and test images, or share no method.
    """
    _same_test(first, second)
    ours, theirs = (
        [name for name in side.board.methods if _has(side, name)] for side in (first, second)
    )
    shared = tuple(name for name in ours if name in theirs)
    if not shared:
        raise StudyError(
            f"two studies must share a method, but {first.study.name} has {', '.join(ours)} and "
            f"{second.study.name} has {', '.join(theirs)}"
        )
    keys = [(name, budget) for budget in first.board.budgets for name in shared]
    paired = _same_images(first, second)
    gaps = [
        contrast(*(_units(side.board.cell(*key), paired=paired) for side in (second, first)))
        for key in keys
    ]
    adjusted = holm([gap.p for gap in gaps], level=1 - confidence)
    unlike = _unlike(first, second)
    decided = [field for field, _, _ in unlike if field.split(".")[0] in RECIPE]
    return Versus(
        first=first,
        second=second,
        methods=shared,
        differences=tuple(
            Comparison(
                name,
                first.study.name,
                budget,
                gap.at(test.confidence if test else confidence),
                test.p if test else None,
                separated=test is not None and test.p < 1 - confidence,
            )
            for (name, budget), gap, test in zip(keys, gaps, adjusted, strict=True)
        ),
        unlike=unlike,
        notes=tuple(_notes(first, second, ours, theirs)),
        exploratory=bool(decided),
    )


def _has(side: Side, name: str) -> bool:
    """Whether a study has a method; dense is on every board, even if it was not run."""
    return name in side.study.methods


def _same_test(first: Side, second: Side) -> None:
    names = first.study.name, second.study.name
    digests = _digests(first, second)
    if digests is not None:
        one, other = digests
        if one.sha256 != other.sha256 and one.splits["test"] != other.splits["test"]:
            raise StudyError(
                "two studies must be on the same test images to be compared, but those of "
                f"{' and '.join(names)} differ: {', '.join(one.differing(other)) or 'classes'} "
                f"(digest {one.sha256[:12]} and {other.sha256[:12]})"
            )
    for field in TEST if digests is None else TASK:
        values = [_task(side)[field] for side in (first, second)]
        if values[0] != values[1]:
            raise StudyError(
                "two studies must be on the same data and test images to be compared, but "
                f"{field} is {values[0]} in {names[0]} and {values[1]} in {names[1]}"
            )


def _same_images(first: Side, second: Side) -> bool:
    """Whether both were tested on the same images, in the same order."""
    digests = _digests(first, second)
    return digests is not None and digests[0].splits["test"] == digests[1].splits["test"]


def _units(cell: Cell, *, paired: bool) -> Units:
    """The results of a cell's runs; those on another test set do not count."""
    return cell.units if paired else replace(cell.units, correct=None)


def _digests(first: Side, second: Side) -> tuple[Digest, Digest] | None:
    """The digests of two studies' data; None if one of them recorded none."""
    one, other = first.provenance.data, second.provenance.data
    return None if one is None or other is None else (one, other)


def _task(side: Side) -> dict[str, object]:
    """The same folder may lie in another place on another machine."""
    return {
        "data": Path(side.study.data).name,
        **{field: _written(side).get(field) for field in TEST[1:]},
    }


def _unlike(first: Side, second: Side) -> tuple[tuple[str, str, str], ...]:
    one, other = _flat(_facts(first)), _flat(_facts(second))
    unknown = {DATA} if _digests(first, second) is None else set()
    fields = sorted(
        (one.keys() | other.keys()) - unknown, key=lambda f: (f.split(".")[0] not in RECIPE, f)
    )
    return tuple(
        (field, one.get(field, "-"), other.get(field, "-"))
        for field in fields
        if one.get(field) != other.get(field)
    )


def _facts(side: Side) -> dict[str, object]:
    study = side.study.model_dump(mode="json", exclude={"name", "resources"})
    names = ("commit", "python", "versions", "machine")
    read = {DATA: side.provenance.data.sha256[:12]} if side.provenance.data else {}
    return {**study, **read, **{name: _written(side).get(name, "-") for name in names}}


def _written(side: Side) -> dict[str, object]:
    return encode_provenance(side.provenance)


def _flat(value: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    fields: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            fields |= _flat(item, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            fields[f"{prefix}{key}"] = text
    return fields


def _notes(first: Side, second: Side, ours: list[str], theirs: list[str]) -> list[str]:
    sentences = []
    digests = _digests(first, second)
    if digests is not None and digests[0].splits["test"] != digests[1].splits["test"]:
        sentences.append(
            "The studies' seeds cut the data differently: they were tested on different images, "
            "and a difference holds that too."
        )
    elif digests is None and first.study.seed != second.study.seed:
        sentences.append(
            "The studies' seeds differ: where the data come without a test split of their own the "
            "two were tested on different images, and a difference holds that too."
        )
    for side, methods, others in ((first, ours, theirs), (second, theirs, ours)):
        if alone := [name for name in methods if name not in others]:
            sentences.append(f"Only {side.study.name} has {', '.join(alone)}.")
        sentences += [f"{side.study.name}: {note}" for note in notes(side.board)]
    return sentences
