"""The names of searches and trials, the same everywhere; all seeds of a trial derive from its name.

`dense-00003` is a trial of the only search of `dense`, `dense-r2-00003` one of its second search,
and `dense-r2-00003-seed1` a confirm run of that configuration. `resrep-00003-unreduced-seed1` is a
run of what `resrep-00003` is reduced from. `base-00000` is a plain backbone that others start from.
"""

UNREDUCED = "-unreduced"
BASE = "base"
"""The search, of a kind, whose trials are the plain backbones that others start from; and the word
for such a start."""


def search_name(method: str, repeat: int | None) -> str:
    """The name of a method's search, by its number from 1 on; None is the only search."""
    return method if repeat is None else f"{method}-r{repeat}"


def repeat_of(search: str) -> tuple[str, int]:
    """The method in the name of one of its several searches, and which of them it is.

    Raises:
        ValueError: it is the name of a method's only search.
    """
    method, _, number = search.rpartition("-r")
    return method, int(number)


def trial_name(search: str, number: int) -> str:
    """The name of a search trial: its search, and its number there."""
    return f"{search}-{number:05d}"


def confirm_name(config: str, seed: int) -> str:
    """The name of a confirm run: the search trial whose parameters it has, and the seed's index."""
    return f"{config}-seed{seed}"


def unreduced_name(config: str) -> str:
    """The name of a configuration's unreduced network."""
    return f"{config}{UNREDUCED}"


def is_unreduced(config: str) -> bool:
    """Whether a name is that of an unreduced network."""
    return config.endswith(UNREDUCED)


def search_of(config: str) -> str:
    """The search in a configuration's name, which is a search trial's, reduced or not."""
    return config.removesuffix(UNREDUCED).rsplit("-", 1)[0]


def number_of(trial: str) -> int:
    """The number in a search trial's name."""
    return int(trial.rsplit("-", 1)[1])
