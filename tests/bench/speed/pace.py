"""Trials per hour of a whole sweep over those of the bare training loop."""

from collections.abc import Iterator

from tests.bench.speed.clock import Clock, Ratio
from tests.bench.speed.goals import Finding, found
from tests.bench.sweep import GOAL, measured

WORDS = {
    "wall": "",
    "cpu": ", CPU time",
    "cold_wall": ", start-up included",
}


def findings(clock: Clock) -> Iterator[Finding]:
    """One round: the sweep, then the same trials in plain processes. Real trials on the CPU."""
    if clock.device.type != "cpu":
        return
    ratios = measured(rounds=1)["ratios"]
    for name, words in WORDS.items():
        one = ratios[name]
        limits = {} if name == "cold_wall" else {"least": GOAL}
        ratio = Ratio(one["median"], one["low"], one["high"])
        yield found(
            "", f"a whole sweep's trials an hour over the bare loop's{words}", ratio, **limits
        )
