"""isoflop from Python: studies, their results as DataFrames, networks and methods.

    import isoflop

    study = isoflop.Study.load("quickstart")        # or a file of your own
    results = study.run(out="runs")                 # the same call resumes it
    results = isoflop.open("quickstart", out="runs")
    results.board()                                 # a DataFrame
    network = isoflop.load("runs/quickstart/exports/skipnet-00003-seed0-torch")

Each name is imported at its first use, so that `import isoflop` itself loads neither torch nor Ray.

>>> import isoflop
>>> isoflop.METHODS["skipnet"]
<class 'methods.skipnet.method.SkipNet'>
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoflop.results import Results, open, studies  # noqa: A004
    from isoflop.study import Study
    from isoflop.training import train
    from methods import METHODS
    from methods.errors import IsoflopError
    from methods.shipping.load import load

__all__ = ["METHODS", "IsoflopError", "Results", "Study", "load", "open", "studies", "train"]

_MODULES = {
    "METHODS": "methods",
    "IsoflopError": "methods.errors",
    "Results": "isoflop.results",
    "Study": "isoflop.study",
    "load": "methods.shipping.load",
    "open": "isoflop.results",
    "studies": "isoflop.results",
    "train": "isoflop.training",
}
"""Public name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'isoflop' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
