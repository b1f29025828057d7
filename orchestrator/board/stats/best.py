"""P(best): how likely each method has the highest mean, in closed form.

It stands beside the tests, never instead of them: of methods that are equal it still gives one some
50 %.
"""

from collections.abc import Mapping

import numpy as np

from orchestrator.board.stats.units import Units, interaction, scipy

POINTS = 641
"""Quantiles over which the leader's mean is taken."""


def best_probability(methods: Mapping[str, Units]) -> dict[str, float]:
    """For new units and images: the posterior share in which each method's mean is the highest.

    Each mean is t distributed about what was observed, with the units' variance pooled over the
    methods, and that of the images' differences between methods where all were tested on the same
    images. Names and their order change nothing. One share for all where nothing varies.

    Raises:
        ValueError: fewer than two methods, or one with fewer than two units.
    """
    if len(methods) < 2 or any(units.n < 2 for units in methods.values()):
        raise ValueError("at least two methods, each of two units")
    free = sum(units.n - 1 for units in methods.values())
    pooled = sum(units.spread * units.n * (units.n - 1) for units in methods.values()) / free
    images, both = _images(methods)
    means = {name: units.mean for name, units in methods.items()}
    errors = {
        name: max(pooled / units.n + images - both / units.n, pooled / units.n) ** 0.5
        for name, units in methods.items()
    }
    if not all(errors.values()):
        leaders = [name for name, mean in means.items() if mean > max(means.values()) - 1e-12]
        return {name: (name in leaders) / len(leaders) for name in methods}
    t = scipy().special
    steps = t.stdtrit(free, (np.arange(POINTS) + 0.5) / POINTS)
    shares = {}
    for name, mean in means.items():
        drawn = mean + errors[name] * steps
        below = [
            t.stdtr(free, (drawn - means[other]) / errors[other])
            for other in sorted(methods, key=lambda other: (means[other], errors[other]))
            if other != name
        ]
        shares[name] = float(np.mean(np.prod(below, axis=0)))
    total = sum(sorted(shares.values()))
    return {name: share / total for name, share in shares.items()}


def _images(methods: Mapping[str, Units]) -> tuple[float, float]:
    """Variance of a mean by method and image, and what of it a unit's spread holds already."""
    known = [units.correct for units in methods.values() if units.correct is not None]
    if len(known) == len(methods) and len({correct.shape[1] for correct in known}) == 1:
        images = known[0].shape[1]
        if images > 1:
            by_method = np.array([correct.mean(axis=0) for correct in known])  # methods images
            both = np.mean([interaction(correct) for correct in known]) / images
            return interaction(by_method) / images, float(both)
    return float(np.mean([units.of_images for units in methods.values()])), 0.0
