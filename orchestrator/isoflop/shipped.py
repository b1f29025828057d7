"""The studies and cluster files that isoflop ships, by name."""

import os
from pathlib import Path

from methods.errors import KubernetesError, StudyError, nearest

FILES = (".yaml", ".yml")


def study_file(study: str | Path) -> Path:
    """The file of a study: a path, or the name of a shipped study.

    >>> study_file("quickstart").name
    'quickstart.yaml'

    Raises:
        StudyError: it is neither.
    """
    names = _names("studies", "studies")
    if _is_path(study):
        return Path(study)
    if str(study) not in names:
        raise StudyError(
            f"a study must be a YAML file or the name of a shipped study, but got {str(study)!r}; "
            f"{nearest(str(study), list(names))}"
        )
    return names[str(study)]


def cluster_file(cluster: str | Path) -> Path:
    """A cluster file: a path, or the name of a shipped one.

    >>> cluster_file("local").name
    'local.yaml'

    Raises:
        KubernetesError: it is neither.
    """
    names = _names("clusters", "k8s/clusters")
    if _is_path(cluster):
        return Path(cluster)
    if str(cluster) not in names:
        raise KubernetesError(
            "--cluster must be a YAML file or the name of a shipped cluster file, but got "
            f"{str(cluster)!r}; {nearest(str(cluster), list(names))}"
        )
    return names[str(cluster)]


def _is_path(place: str | Path) -> bool:
    """Whether a file is meant and no name; one that is missing is for its reader to report."""
    path = Path(place)
    is_file = os.path.isfile(path)  # noqa: PTH113  # False, too, for a name that no system takes
    return path.suffix in FILES or is_file or path.name != str(place)


def _names(installed: str, checkout: str) -> dict[str, Path]:
    """Name -> file: below this package where it is installed, else in the checkout."""
    here = Path(__file__).parent
    folder = here / installed
    if not folder.is_dir():
        folder = here.parents[1] / checkout
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}
