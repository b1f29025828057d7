"""What a surrogate predicts of configurations that it has not seen."""

import numpy as np

from orchestrator.search.model.gaussian import Process


def matern(a: np.ndarray, b: np.ndarray, scales: np.ndarray) -> np.ndarray:
    far = np.sqrt(5 * (((a[:, None] - b[None]) / scales) ** 2).sum(axis=2))
    return (1 + far + far**2 / 3) * np.exp(-far)


def test_all_seeds_of_a_configuration_are_left_out_together() -> None:
    random = np.random.default_rng(0)
    places = random.random((8, 2))[[0, 1, 2, 3, 4, 5, 6, 7, 2, 2, 5]]
    outputs = np.sin(5 * places) + random.normal(0, 0.1, places.shape)
    scales, noise = np.array([0.4, 0.7]), 0.05
    process = Process.of(places, outputs, np.zeros(2), scales, noise)
    standard = (outputs - outputs.mean(axis=0)) / outputs.std(axis=0)
    for row, place in enumerate(places):
        rest = (places != place).any(axis=1)
        gram = matern(places[rest], places[rest], scales) + noise * np.eye(rest.sum())
        cross = matern(place[None], places[rest], scales)
        mean = outputs.mean(axis=0) + outputs.std(axis=0) * (
            cross @ np.linalg.solve(gram, standard[rest])
        )
        np.testing.assert_allclose(process.left_out()[row], mean[0], rtol=1e-6)
