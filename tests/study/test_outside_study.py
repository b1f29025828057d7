"""Studies with methods of other packages: what they call them, and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import called
from tutorial import mynets

from methods import METHODS, outside
from methods.errors import IsoflopError
from orchestrator.study.file import Study, load
from orchestrator.study.params import model_of
from orchestrator.study.params import outside as sources
from orchestrator.study.space import spaces

SENET = "mynets.se:SENet"
WRONG = """
from methods.dense import Dense

class Wrong(Dense):
    '''Promises what it does not keep.'''
    def build(self, task):
        net = super().build(task)
        net.cost -= 1000
        return net
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mynets(tmp_path_factory.mktemp("beside"))


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the tests import is forgotten again."""
    monkeypatch.setattr(outside, "FOLDERS", [])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mynets", "wrong"):
            del sys.modules[name]
    outside.BESIDE.folders.clear()
    outside.IMPORTED.clear()
    METHODS._outside.clear()


def written(folder: Path, methods: str, **more: Any) -> Path:
    file = folder / "study.yaml"
    lines = [f"{name}: {value}\n" for name, value in more.items()]
    file.write_text(
        f"name: mine\ndata: digits\nbudgets: [0.3]\nmethods: {{{methods}}}\n" + "".join(lines)
    )
    return file


def test_a_class_beside_the_study_has_a_name_controls_and_variants(place: Path) -> None:
    methods = (
        f"dense: {{}}, se8: {{method: '{SENET}', depth: 8}}, se-again: {{method: se8}}, "
        "se-published: {method: se8, profile: published}"
    )
    study = load(written(place, methods))
    opened = spaces(study)
    assert study.controls == {"se-again": "se8"}
    assert opened["se8"].fixed["depth"] == opened["se-again"].fixed["depth"] == 8
    assert "depth" in opened["se-published"].free
    for name in ("se8", "se-again", "se-published"):
        params = opened[name].params(opened[name].defaults())
        assert params["method"] == SENET
        assert model_of(name, params).__name__ == "SENet"
    kept = sources(study)
    assert list(kept) == [SENET]
    assert set(kept[SENET].files) == {f"mynets/{n}.py" for n in ("__init__", "earlyexit", "se")}


def test_a_study_of_isoflops_own_methods_has_no_source_to_keep() -> None:
    assert sources(load(Path(__file__).parents[2] / "studies/quickstart.yaml")) == {}


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (
            f"dense: {{method: '{SENET}'}}",
            "'dense' is the name of a method .*class of your own; write `senet`",
        ),
        (f"SE: {{method: '{SENET}'}}", "lower-case letters and digits.*but this one is 'SE'"),
        (f"se-2: {{method: '{SENET}'}}", "such as `senet18-small`, but this one is 'se-2'"),
        (f"se: {{method: '{SENET}', dept: 8}}", "no field 'dept'; did you mean 'depth'"),
        (f"se: {{method: '{SENET}', depth: 200}}", "depth must be at most 110"),
        (
            "se: {method: 'mynets.se:SeNet'}",
            "must define SeNet, but does not; did you mean 'SENet'",
        ),
        ("se: {method: 'nynets.se:SENet'}", "installed or lie in .*no module is called 'nynets'"),
        ("se: {method: 'mynets:'}", "must be written `package.module:Class`"),
        ("'mynets.se:SENet': {}", "but this one is 'mynets.se:SENet'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_of_the_file(
    place: Path, methods: str, sentence: str
) -> None:
    file = written(place, methods)
    with pytest.raises(IsoflopError, match=sentence) as refused:
        spaces(load(file))
    assert str(refused.value).startswith(f"{file}:4: ")


def test_a_wrong_price_is_refused_before_a_worker_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    file = written(tmp_path, "dense: {}, mine: {method: 'wrong:Wrong', depth: 8, width: 0.25}")
    for command in (["plan", "--steps", "0"], ["run"]):
        ended = called(capsys, command[0], str(file), *command[1:], "--out", str(tmp_path / "o"))
        assert ended.code == 2
        assert ended.err.count("\n") == 1
        assert "Wrong must price what its deployed network executes" in ended.err
        assert not (tmp_path / "o").exists()


def test_a_field_with_a_word_of_studies_is_refused(tmp_path: Path) -> None:
    text = (
        "from methods.dense import Dense\nclass Wrong(Dense):\n    '''W.'''\n    method: int = 1\n"
    )
    (tmp_path / "wrong.py").write_text(text)
    with pytest.raises(IsoflopError, match="called 'method', which is a word of studies"):
        spaces(load(written(tmp_path, "mine: {method: 'wrong:Wrong'}")))


def test_the_place_is_part_of_the_hash() -> None:
    plain = {"name": "s", "data": "digits", "budgets": [1]}
    one, other = (
        Study.model_validate({**plain, "methods": {"se": {"method": place}}})
        for place in (SENET, "mynets.other:SENet")
    )
    assert one.hash != other.hash
