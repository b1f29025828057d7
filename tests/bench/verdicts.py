"""What a comparison of searches says: shares, paired differences, and epochs saved, as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.board.stats.intervals import summary
from orchestrator.search.model.gaussian import Array
from orchestrator.search.replay.tournament import FRACTIONS, SHOWN, Standing

BASELINE = "random"
PERFECT = "perfect"
DRAWS = 2000
"""Bootstrap samples of the replicates."""


@dataclass(frozen=True)
class Field:
    """The searchers that raced in one setting, on the same seeds."""

    title: str
    races: Mapping[str, Standing]


HEAD = """# Races of searches

Searchers on [recorded tables](search.md#tables-in-the-repository), with equal epochs and the same
seeds, {replicates} replicates each.

```sh
{command}
```

- **20 % to 100 %**: share of the best known hypervolume when a part of the epochs is spent, as
  [search](search.md#what-is-measured) has it, mean over replicates and methods.
- **paired, 100 %**: difference from `random` at the end, with its 95 % interval; bold where that
  does not hold 0.
- **epochs, time**: what is spent until the mean share reaches that with which `random` ends, over
  what `random` spends, in epochs and in simulated seconds; in parentheses 95 % bootstrap intervals
  over the replicates.
- **CPU s**: of one search of all methods, simulation included; taken beside other work, which
  lengthens it up to threefold.
- A searcher that is missing in a setting was not raced there. One whose searches take many minutes
  raced on the first few seeds alone (`--replicates`), as many as the number behind its name; it is
  compared with `random` on these.
- `default` is the search of `isoflop run`, `+promote` [pauses trials](search.md#promotion), `prior`
  and `shared` are [ideas](search.md#samplers) that are no part of it, and the others are
  [peers](search.md#peers). `{perfect}` knows the surrogates: after the defaults it tries the places
  that add most to the front without noise. It shows what could be won.
{figure}"""


def page(fields: Sequence[Field], replicates: int, command: str, figure: str = "") -> str:
    """All settings, one table each, the command that repeats them, and the first one's figure."""
    drawn = f"\n![{fields[0].title}]({figure})\n" if figure else ""
    head = HEAD.format(replicates=replicates, command=command, perfect=PERFECT, figure=drawn)
    return "\n".join([head, *("\n".join(_section(field)) for field in fields)])


def _section(field: Field) -> list[str]:
    heads = ["searcher", *(f"{100 * fraction:.0f} %" for fraction in SHOWN)]
    heads += ["paired, 100 %", "epochs", "time", "CPU s"]
    lines = [f"### {field.title}", "", _row(heads), _row(["---"] * len(heads))]
    most = max(len(race.confirmed) for race in field.races.values())
    for name, race in field.races.items():
        shares = [race.confirmed[:, FRACTIONS.index(fraction)].mean() for fraction in SHOWN]
        count = len(race.confirmed)
        base = first(field.races[BASELINE], count) if BASELINE in field.races else None
        label = f"`{name}`" if count == most else f"`{name}` ({count})"
        cells = [label, *(f"{share:.3f}" for share in shares)]
        if base is None:
            cells += ["", "", ""]
        else:
            cells.append("" if name == BASELINE else difference(race, base))
            cells += [until(race, base, epochs), until(race, base, seconds)]
        lines.append(_row([*cells, _two_digits(race.cpu)]))
    return [*lines, ""]


def first(race: Standing, count: int) -> Standing:
    """The first replicates of a race."""
    arrays = {name: getattr(race, name)[:count] for name in ("confirmed", "observed", "timed")}
    return replace(race, **arrays)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def difference(race: Standing, base: Standing, fraction: float = 1.0) -> str:
    """The mean paired difference of the shares, with its 95 % interval."""
    place = FRACTIONS.index(fraction)
    gains = summary((race.confirmed[:, place] - base.confirmed[:, place]).tolist())
    if gains.mean is None or gains.hi is None:
        return ""
    text = f"{gains.mean:+.3f} ± {gains.hi - gains.mean:.3f}"
    clear = gains.lo is not None and gains.lo * gains.hi > 0
    return f"**{text}**" if clear else text


Spent = Callable[[Standing, Array, float], float]
"""From a searcher, its replicates, and a share: what it spends until their mean reaches it."""


def until(race: Standing, base: Standing, spent: Spent) -> str:
    """What a searcher spends until the baseline's final share, over what the baseline spends, with
    a 95 % bootstrap interval over the replicates, which are paired."""

    def ratio(chosen: Array) -> float:
        goal = float(base.confirmed[chosen, -1].mean())
        return spent(race, chosen, goal) / spent(base, chosen, goal)

    count = len(base.confirmed)
    random = np.random.default_rng(0)
    middle = ratio(np.arange(count))
    draws = [ratio(random.integers(count, size=count)) for _ in range(DRAWS)]
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    if not np.isfinite(low):  # in hardly any draw
        return _share(middle)
    return f"{_share(middle)} ({_share(low)} to {_share(high)})"


def _two_digits(value: float) -> str:
    rounded = float(f"{value:.2g}")
    return f"{rounded:g}"


def _share(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "never"


def epochs(race: Standing, chosen: Array, goal: float) -> float:
    """The part of its epochs until the mean of the chosen replicates reaches a share."""
    return _crossing(np.array(FRACTIONS), race.confirmed[chosen].mean(axis=0), goal)


def seconds(race: Standing, chosen: Array, goal: float) -> float:
    """The simulated seconds until the mean of the chosen replicates reaches a share."""
    return _crossing(race.times, race.timed[chosen].mean(axis=0), goal)


def _crossing(places: Array, means: Array, goal: float) -> float:
    """Where a rising curve through the origin first reaches a value; infinity if it never does."""
    above = np.flatnonzero(means >= goal - 1e-9)
    if not len(above):
        return float("inf")
    end = int(above[0])
    x0, y0 = (places[end - 1], means[end - 1]) if end else (0.0, 0.0)
    x1, y1 = places[end], means[end]
    return float(x1 if y1 <= y0 else x0 + (x1 - x0) * (goal - y0) / (y1 - y0))
