"""What isoflop ships beside its code: studies and cluster files by name, and the Helm chart."""

import os
from collections.abc import Mapping
from pathlib import Path

from methods.errors import IsoflopError, KubernetesError, StudyError, nearest

FILES = (".yaml", ".yml")


def study_file(study: str | Path) -> Path:
    """The file of a study: a path, or the name of a shipped study.

    >>> study_file("quickstart").name
    'quickstart.yaml'

    Raises:
        StudyError: it is neither.
    """
    law = "a study must be a YAML file or the name of a shipped study"
    return _file(study, _names("studies", "studies"), StudyError, law)


def study_names() -> list[str]:
    """The shipped studies.

    >>> "quickstart" in study_names()
    True
    """
    return list(_names("studies", "studies"))


def cluster_file(cluster: str | Path) -> Path:
    """A cluster file: a path, or the name of a shipped one.

    >>> cluster_file("local").name
    'local.yaml'

    Raises:
        KubernetesError: it is neither.
    """
    law = "--cluster must be a YAML file or the name of a shipped cluster file"
    return _file(cluster, _names("clusters", "k8s/clusters"), KubernetesError, law)


def chart_folder() -> Path:
    """The Helm chart that prepares a namespace for sweeps.

    >>> (chart_folder() / "Chart.yaml").is_file()
    True
    """
    return _folder("chart", "k8s/chart")


def _file(
    place: str | Path, names: Mapping[str, Path], error: type[IsoflopError], law: str
) -> Path:
    if _is_path(place):
        return Path(place)
    if str(place) not in names:
        raise error(f"{law}, but got {str(place)!r}; {nearest(str(place), list(names))}")
    return names[str(place)]


def _is_path(place: str | Path) -> bool:
    """Whether this is a path rather than a name; a missing file is reported by its reader."""
    path = Path(place)
    is_file = os.path.isfile(path)  # noqa: PTH113  # False, too, for a name that no system takes
    return path.suffix in FILES or is_file or path.name != str(place)


def _names(installed: str, checkout: str) -> dict[str, Path]:
    """Name -> file."""
    return {file.stem: file for file in sorted(_folder(installed, checkout).glob("*.yaml"))}


def _folder(installed: str, checkout: str) -> Path:
    """A folder of files: below this package where it is installed, else in the checkout."""
    here = Path(__file__).parent
    folder = here / installed
    return folder if folder.is_dir() else here.parents[1] / checkout
