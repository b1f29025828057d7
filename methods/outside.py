"""Methods of other packages: how they are found, what they must be, and which source is theirs.

Only the packages that a study names are looked for beside it, and after all that is installed: no
other file of a user's folder is ever imported, whatever its name.
"""

import importlib.util
import json
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from methods import files
from methods.errors import MethodError, StorageError, nearest

if TYPE_CHECKING:
    from methods.api import Method

GROUP = "isoflop.methods"
"""The group of entry points by which a package registers its methods."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z]+)*")
"""A method's name: trials, folders and MLflow tags begin with it, and a number follows a dash."""
LONGEST = 47
PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""`package.module:Class`."""
OURS = frozenset({"methods", "orchestrator", "isoflop"})
MUST_DEFINE = ("build", "phases", "deploy", "floor")
MOST_FILES, MOST_BYTES = 2000, 16 * 2**20
"""Limits of one package's source, which is stored with each study."""
INDEX = "source.json"
"""The file that makes a folder a record of sources."""


class Finder(MetaPathFinder):
    """Finds packages, and no others, in the folders given for each."""

    def __init__(self) -> None:
        self.folders: dict[str, list[Path]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, _target: Any = None
    ) -> ModuleSpec | None:
        """The package, if it is one of these; its modules are found in it as usual."""
        if path is not None or fullname not in self.folders:
            return None
        return PathFinder.find_spec(fullname, [str(each) for each in self.folders[fullname]])


RECORDED, BESIDE = Finder(), Finder()
"""Before all that is installed: what a study recorded. After it: what lies beside a study."""
FOLDERS: list[Path] = []
"""Folders of study files, the latest first."""
IMPORTED: dict[str, str] = {}
"""Package -> the digest of its source when this process imported a method of it."""


@dataclass(frozen=True)
class Source:
    """The Python files of a method's packages, by their names from the folders of the packages."""

    place: str
    packages: tuple[str, ...]
    files: Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        """Equal for equal names and contents."""
        return _digest(self.files)


def look_in(folder: Path) -> None:
    """Looks for the packages that studies name in this folder, too."""
    folder = folder.absolute()
    if folder in FOLDERS:
        FOLDERS.remove(folder)
    FOLDERS.insert(0, folder)


def registered() -> dict[str, list[EntryPoint]]:
    """The methods that installed packages register, by name."""
    points: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        points.setdefault(point.name, []).append(point)
    return dict(sorted(points.items()))


def place_of(name: str) -> str | None:
    """Where the registered method of this name is; None where no package registers one.

    Raises:
        MethodError: two packages register it, or the name cannot be that of a method.
    """
    points = registered().get(name, [])
    if not points:
        return None
    owners = sorted(point.dist.name if point.dist else point.value for point in points)
    if len(points) > 1:
        raise MethodError(
            f"one installed package must register the method {name!r}, but {' and '.join(owners)} "
            f"do; uninstall one, or write `{name}: {{method: {points[0].value}}}` under another "
            "name"
        )
    refuse_other_name(name, f"the package {owners[0]} registers")
    return f"{points[0].module}:{points[0].attr}"


def refuse_other_name(name: str, whose: str) -> None:
    """Refuses what cannot be a method's name.

    Raises:
        MethodError: says what a name must be.
    """
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise MethodError(
            f"a method's name must be lower-case letters and digits, then dashes and letters, "
            f"{LONGEST} at most, such as `senet18-small`, but {whose} {name[:60]!r}"
        )


def resolve(place: str) -> "type[Method]":
    """The method at `package.module:Class`.

    Raises:
        MethodError: there is none, its module cannot be imported, or it is no method.
    """
    if not PLACE.fullmatch(place):
        raise MethodError(
            f"a method of your own must be written `package.module:Class`, but got {place[:100]!r}"
        )
    module, _, name = place.partition(":")
    package = module.partition(".")[0]
    if package in OURS | sys.stdlib_module_names | {"__main__"}:
        whose = "isoflop" if package in OURS else "Python"
        raise MethodError(
            f"a method of your own must lie in a package of your own, but {package!r}, of "
            f"{place}, is a name of {whose}; give the package another name"
        )
    _open([package])
    try:
        content = import_module(module)
    except (Exception, SystemExit) as error:
        raise MethodError(_not_imported(place, module, error)) from error
    method = getattr(content, name, None)
    if method is None:
        from methods.api import Method  # noqa: PLC0415  # loads torch

        others = [
            n for n, value in vars(content).items() if _derives(value) and value is not Method
        ]
        hint = nearest(name, others) if others else "it has no method at all"
        raise MethodError(f"{module} must define {name}, but does not; {hint}")
    _refuse_no_method(method, place)
    found: type[Method] = method
    for each in _packages(place, found):
        IMPORTED.setdefault(each, _digest(_files(each, _taken(each))))
    return found


def source(place: str, method: "type[Method]") -> Source:
    """The source of a method that this process has imported.

    Raises:
        MethodError: it has no Python files, too many, or others than when it was imported.
    """
    read = {package: _files(package, _taken(package)) for package in _packages(place, method)}
    for package, content in read.items():
        if IMPORTED.get(package, _digest(content)) != _digest(content):
            raise MethodError(
                f"the source of {package!r} must be what this process imported, but its files "
                "have changed since; start Python anew"
            )
    return _joined(place, read)


def here(place: str, packages: Iterable[str]) -> Source | None:
    """The source of packages as it lies here, without importing them; None where it does not."""
    packages = tuple(packages)
    _open(packages)
    try:
        return _joined(
            place, {package: _files(package, _installed(package)) for package in packages}
        )
    except MethodError:
        return None


def keep(folder: Path, sources: Mapping[str, Source]) -> None:
    """Writes the source of methods, by name, into a folder, unless it holds a record already.

    Raises:
        OSError: it cannot be written.
    """
    if not sources or (folder / INDEX).exists():
        return
    for each in sources.values():
        for name, content in each.files.items():
            files.write(folder / name, content)
    index = {
        name: {"place": each.place, "packages": each.packages, "sha256": each.sha256}
        for name, each in sources.items()
    }
    files.write(folder / INDEX, json.dumps(index, indent=1))


def recorded(folder: Path) -> dict[str, Source]:
    """The sources that `keep` wrote, by method; empty where it wrote none.

    Raises:
        StorageError: they cannot be read, or were altered.
    """
    if not (folder / INDEX).exists():
        return {}
    found = {}
    try:
        for name, entry in json.loads((folder / INDEX).read_text()).items():
            packages = tuple(entry["packages"])
            read = {n: text for each in packages for n, text in _recorded(folder, each).items()}
            found[name] = Source(entry["place"], packages, read)
            if found[name].sha256 != entry["sha256"]:
                raise ValueError(f"the source of {name!r} was altered")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MethodError) as error:
        raise StorageError(
            f"{folder} must hold the source of the study's methods as it was recorded, but: {error}"
        ) from None
    return found


def use(folder: Path) -> dict[str, str]:
    """Takes methods from the source that is recorded in a folder; their places, by registered name.

    What is installed here with the same source is taken as it is, with the files beside it.

    Raises:
        StorageError: the record cannot be read, or was altered.
        MethodError: this process has imported another source of the same package.
    """
    kept = recorded(folder)
    for name, each in kept.items():
        _open(each.packages)
        present = [_files(package, _taken(package), least=0) for package in each.packages]
        if _digest({name: text for read in present for name, text in read.items()}) == each.sha256:
            continue
        if other := [package for package in each.packages if package in sys.modules]:
            raise MethodError(
                f"the method {name!r} must be taken from the source that its study recorded, "
                f"{folder}, but this process has imported another {other[0]!r}; start Python anew"
            )
        if RECORDED not in sys.meta_path:
            sys.meta_path.insert(0, RECORDED)
        RECORDED.folders |= {package: [folder] for package in each.packages}
        importlib.invalidate_caches()
    return {name: each.place for name, each in kept.items() if name != each.place}


def _open(packages: Iterable[str]) -> None:
    """Lets packages be found beside a study, and in the working folder."""
    if BESIDE not in sys.meta_path:
        sys.meta_path.append(BESIDE)
    BESIDE.folders |= {package: [*FOLDERS, Path.cwd()] for package in packages}


def _derives(value: object) -> bool:
    from methods.api import Method  # noqa: PLC0415  # loads torch

    return isinstance(value, type) and issubclass(value, Method)


def _refuse_no_method(method: Any, place: str) -> None:
    from methods.api import Method  # noqa: PLC0415  # loads torch

    if not _derives(method):
        kind = "another class" if isinstance(method, type) else f"a {type(method).__name__}"
        raise MethodError(
            f"{place} must be a class that derives from `methods.api.Method`, but is {kind}"
        )
    lacking = [name for name in MUST_DEFINE if getattr(method, name) is getattr(Method, name)]
    if lacking:
        raise MethodError(f"{place} must define {' and '.join(lacking)}, but does not")
    if open_fields := [name for name, field in method.model_fields.items() if field.is_required()]:
        raise MethodError(
            f"every field of {place} must have a default, but {', '.join(open_fields)} has none"
        )


def _not_imported(place: str, module: str, error: BaseException) -> str:
    """Why a module cannot be imported, in one sentence."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (module == missing or module.startswith(f"{missing}.")):
        where = " or ".join(dict.fromkeys(map(str, [*FOLDERS, Path.cwd()])))
        return f"{place} must be installed or lie in {where}, but no module is called {missing!r}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".rstrip(": ")
    line = f"{Path(last.filename).name}:{last.lineno}"
    hint = "; a method in several files is a package: a folder with an `__init__.py`"
    return f"{place} must be importable, but {line} raised {reason}{hint if missing else ''}"


def _packages(place: str, method: "type[Method]") -> tuple[str, ...]:
    """The packages that a method's source is: of its place, and of its class."""
    tops = {place.partition(":")[0].partition(".")[0], method.__module__.partition(".")[0]}
    return tuple(sorted(tops - OURS))


def _taken(package: str) -> ModuleSpec | None:
    """Where this process has a package from, or would import it from."""
    try:
        return importlib.util.find_spec(package)
    except ValueError:  # a module that was made by hand
        return None


def _installed(package: str) -> ModuleSpec | None:
    """Where a package would be imported from, were nothing recorded."""
    for finder in sys.meta_path:
        if finder is not RECORDED and (spec := finder.find_spec(package, None)):
            return spec
    return None


def _files(package: str, spec: ModuleSpec | None, least: int = 1) -> dict[str, bytes]:
    """The Python files of a package.

    Raises:
        MethodError: there are too many, or fewer than `least`.
    """
    portions = list(spec.submodule_search_locations or ()) if spec else []
    if spec and not portions and spec.origin:
        portions = [spec.origin]
    read = {name: text for each in portions for name, text in _read(Path(each)).items()}
    if len(read) < least:
        raise MethodError(f"the package {package!r} must have Python files, but has none here")
    return read


def _joined(place: str, read: Mapping[str, Mapping[str, bytes]]) -> Source:
    """A source from the files of its packages."""
    content = {name: text for each in read.values() for name, text in each.items()}
    return Source(place, tuple(read), content)


def _recorded(folder: Path, package: str) -> dict[str, bytes]:
    """The Python files of a package in the record of a study."""
    alone = folder / f"{package}.py"
    return _read(alone if alone.is_file() else folder / package)


def _read(root: Path) -> dict[str, bytes]:
    """A module, or the Python files below a folder, by their names from the folder above.

    Raises:
        MethodError: there are too many.
    """
    if root.suffix == ".py":
        return {root.name: root.read_bytes()}
    read: dict[str, bytes] = {}
    for place, inner, names in os.walk(root):
        inner[:] = sorted(
            each
            for each in inner
            if each.isidentifier()
            and each != "__pycache__"
            and not (Path(place) / each / INDEX).exists()  # of a sweep that ran in the package
        )
        for path in (Path(place) / name for name in sorted(names) if name.endswith(".py")):
            read[path.relative_to(root.parent).as_posix()] = path.read_bytes()
        if len(read) > MOST_FILES or sum(map(len, read.values())) > MOST_BYTES:
            raise MethodError(
                f"the package {root.name!r} of a method must have at most {MOST_FILES:,} Python "
                f"files of {MOST_BYTES // 2**20} MB in all, since its source is kept with each "
                "study, but has more; move the method into a smaller package"
            )
    return read


def _digest(content: Mapping[str, bytes]) -> str:
    """Digest of names and contents, in any order."""
    sums = {name: files.digest(text) for name, text in content.items()}
    return files.digest(json.dumps(sums, sort_keys=True))
