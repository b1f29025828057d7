"""Methods of other packages: found, refused in a sentence, and taken from the recorded source.

Each case has a process of its own: what is imported stays.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shadows import shadow
from tutorial import mynets

ROOT = Path(__file__).parents[2]
LITTLE = """
from methods.dense import Dense

class Little(Dense):
    '''A ResNet.'''
"""


def python(folder: Path, code: str, *paths: Path) -> str:
    """What this code prints in a folder, or the last line of its traceback."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *paths]))},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    return (done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]).strip()


def registered(folder: Path, distribution: str, *entries: str) -> Path:
    """A folder with the entry points of an installed package."""
    info = folder / f"{distribution}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[isoflop.methods]\n" + "\n".join(entries) + "\n")
    return folder


def module(folder: Path, name: str, text: str = LITTLE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return folder


GET = "from methods import METHODS; print(METHODS[{!r}].__name__)"


def test_a_module_of_the_working_folder_is_found_and_nothing_else_of_it(tmp_path: Path) -> None:
    module(shadow(tmp_path / "work"), "little")
    assert python(tmp_path / "work", GET.format("little:Little")) == "Little"
    code = "import little_too\n"
    module(tmp_path / "work", "little_too")
    assert "No module named 'little_too'" in python(tmp_path / "work", code)


def test_a_module_beside_the_study_is_found(tmp_path: Path) -> None:
    module(tmp_path / "there", "little")
    code = "from methods.outside import look_in; from pathlib import Path\n"
    code += f"look_in(Path({str(tmp_path / 'there')!r}))\n" + GET.format("little:Little")
    assert python(tmp_path, code) == "Little"


def test_what_is_installed_comes_before_what_lies_beside_a_study(tmp_path: Path) -> None:
    installed = module(tmp_path / "site", "little", LITTLE + "Little.__name__ = 'Installed'")
    module(tmp_path / "work", "little")
    assert python(tmp_path / "work", GET.format("little:Little"), installed) == "Installed"


@pytest.mark.parametrize(
    ("place", "text", "sentence"),
    [
        ("little:Other", LITTLE, "little must define Other, but does not; .*valid: Dense, Little"),
        ("little:Other", "", "it has no method at all"),
        ("little:one", "one = 1", "derives from `methods.api.Method`, but is a int"),
        ("little:C", "class C: pass", "derives from `methods.api.Method`, but is another class"),
        (
            "little:C",
            "from methods.api import Method\nclass C(Method):\n    def build(self, task): ...",
            "little:C must define phases and deploy and floor",
        ),
        (
            "little:C",
            "from methods.dense import Dense\nclass C(Dense):\n    groups: int",
            "every field of little:C must have a default, but groups has none",
        ),
        ("little:C", "1 / 0", r"little.py:1 raised ZeroDivisionError: division by zero"),
        ("little:C", "\nraise SystemExit", "little.py:2 raised SystemExit"),
        ("little:C", "def", "raised SyntaxError"),
        ("little:C", "import moon", r"No module named 'moon'; a method in several files is a"),
        ("absent.net:C", "", "installed or lie in .*, but no module is called 'absent'"),
        ("little.net:C", "", "no module is called 'little.net'"),
        ("methods.dense:Dense", "", "'methods', of .*, is a name of isoflop"),
        ("json:Dense", "", "'json', of .*, is a name of Python"),
        ("little:C:D", "", "must be written `package.module:Class`, but got 'little:C:D'"),
        ("../little:C", "", "must be written `package.module:Class`"),
    ],
)
def test_what_is_no_method_is_refused_in_a_sentence(
    tmp_path: Path, place: str, text: str, sentence: str
) -> None:
    module(tmp_path, "little", text)
    said = python(tmp_path, GET.format(place))
    assert said.startswith("methods.errors.MethodError: "), said
    assert re.search(sentence, said), said


def test_an_installed_package_registers_its_methods(tmp_path: Path) -> None:
    entry = "little = little : Little [extra]"
    site = registered(module(tmp_path / "site", "little"), "little", entry)
    code = "from methods import METHODS; print(*METHODS, len(METHODS), 'little' in METHODS)"
    names = "dense skipnet condensenet condconv dsnet resrep little 7 True"
    assert python(tmp_path, code, site) == names
    assert python(tmp_path, GET.format("little"), site) == "Little"
    assert python(tmp_path, GET.format("lttle"), site) == "KeyError: 'lttle'"


def test_a_registered_method_takes_no_name_of_isoflop(tmp_path: Path) -> None:
    site = registered(module(tmp_path / "site", "little"), "little", "dense = little:Little")
    code = "from methods import METHODS; print(*METHODS, METHODS['dense'], METHODS.place('dense'))"
    said = python(tmp_path, code, site)
    assert said.endswith("resrep <class 'methods.dense.Dense'> None"), said


def test_two_packages_with_one_name_are_refused_where_it_is_used(tmp_path: Path) -> None:
    site = registered(module(tmp_path / "site", "little"), "one", "little = little:Little")
    registered(site, "other", "little = little:Little", "Big = little:Little")
    assert "register the method 'little', but one and other do" in python(
        tmp_path, GET.format("little"), site
    )
    assert "but the package other registers 'Big'" in python(tmp_path, GET.format("Big"), site)
    assert python(tmp_path, GET.format("dense"), site) == "Dense"


def test_a_broken_entry_point_harms_no_other_method(tmp_path: Path) -> None:
    site = registered(
        module(tmp_path / "site", "broken", "raise RuntimeError('no license')"),
        "broken",
        "broken = broken:Net",
        "dense = broken:Net",
    )
    code = "from orchestrator.cli import main; main(['methods'])"
    said = python(tmp_path, code, site)
    assert "skipnet" in said
    assert "Refused: broken: broken:Net must be importable, but broken.py:1 raised" in said
    assert "Refused: dense is a method of isoflop, so broken:Net must have another name" in said
    code = "from orchestrator.cli import main; main(['methods', '--json'])"
    assert '"refused": [' in python(tmp_path, code, site)
    module(tmp_path / "site", "broken")
    assert '"refused": [' in python(tmp_path, code, site), "there is no Net"


KEEP = """
from pathlib import Path
from methods import METHODS, outside
place = "mynets.se:SENet"
source = outside.source(place, METHODS[place])
outside.keep(Path("source"), {"senet": source, place: source})
print(source.sha256)
"""
USE = """
from pathlib import Path
from methods import METHODS
METHODS.use(Path("source"))
import inspect
print(inspect.getfile(METHODS["senet"]), METHODS["senet"] is METHODS["mynets.se:SENet"])
"""


def test_the_recorded_source_is_what_a_worker_takes(tmp_path: Path) -> None:
    site = mynets(tmp_path / "site")
    digest = python(tmp_path, KEEP, site)
    assert len(digest) == 64
    kept = sorted(str(file.relative_to(tmp_path)) for file in (tmp_path / "source").rglob("*.*"))
    modules = ["__init__.py", "earlyexit.py", "se.py"]
    assert kept == [*(f"source/mynets/{name}" for name in modules), "source/source.json"]
    assert python(tmp_path, USE) == f"{tmp_path}/source/mynets/se.py True"
    assert python(tmp_path, USE, site) == f"{site}/mynets/se.py True", "the same is installed"
    (site / "mynets" / "se.py").write_text("raise SystemError('another version')")
    assert python(tmp_path, USE, site) == f"{tmp_path}/source/mynets/se.py True"
    assert python(tmp_path, USE + USE, site).endswith("se.py True"), "a worker's next trial"
    (tmp_path / "source" / "mynets" / "se.py").write_text("")
    assert "the source of 'senet' was altered" in python(tmp_path, USE)
    (tmp_path / "source" / "source.json").write_text("{")
    assert python(tmp_path, USE).startswith("methods.errors.StorageError")


def test_another_source_than_the_imported_one_is_refused(tmp_path: Path) -> None:
    site = mynets(tmp_path / "site")
    python(tmp_path, KEEP, site)
    with (site / "mynets" / "se.py").open("a") as file:
        file.write("# changed")
    said = python(tmp_path, "import mynets.se\n" + USE, site)
    assert "this process has imported another 'mynets'; start Python anew" in said
    change = KEEP.replace(
        "source =",
        f"METHODS[place]; open({str(site / 'mynets/se.py')!r}, 'a').write('#')\nsource =",
    )
    assert "its files have changed since; start Python anew" in python(tmp_path, change, site)


def test_the_digest_is_of_the_python_files_alone(tmp_path: Path) -> None:
    site = mynets(tmp_path / "site")
    digest = python(tmp_path, KEEP, site)
    inside = site / "mynets"
    for name in ("notes.txt", ".hidden/a.py", "__pycache__/a.py", "runs/s/source/source.json"):
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        (inside / name).write_text("")
    (inside / "runs" / "s" / "source" / "copy.py").write_text("")
    assert python(tmp_path, KEEP, site) == digest
    (inside / "more").mkdir()
    (inside / "more" / "net.py").write_text("")
    assert python(tmp_path, KEEP, site) != digest
