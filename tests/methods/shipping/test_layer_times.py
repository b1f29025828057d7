"""The table of operations by which a network's time is predicted, and times in turns."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from methods import METHODS
from methods.api import Task
from methods.dense import Dense
from methods.machine import threads
from methods.shipping import layers
from methods.shipping.layers import Layers
from methods.shipping.turns import Turns, in_turns, reference

TASK = Task("digits", 1, 8, 8, 10)
SMALL: dict[str, Any] = {
    "depth": 8,
    "width": 0.5,
    "stages": "1-1-1",
    "choices": 4,
    "routing_size": 2,
}


@pytest.fixture
def each(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every operation takes a millisecond; the length is how many were timed."""
    timed: list[int] = []

    def least(*_: object) -> float:
        timed.append(1)
        return 1e-3

    monkeypatch.setattr(layers, "_least", least)
    return timed


def small(name: str) -> Any:
    method = METHODS[name]
    return method.of({field: v for field, v in SMALL.items() if field in method.model_fields})


def test_the_reference_is_predicted_to_take_what_it_takes(tmp_path: Path) -> None:
    table = Layers(TASK, "cpu", 1, tmp_path)
    ms = table.reference_ms
    assert ms > 0
    assert table.predicted_ms(reference(TASK)) == pytest.approx(ms)


def test_every_operation_is_timed_once_for_a_machine(tmp_path: Path, each: list[int]) -> None:
    first = Layers(TASK, "cpu", 1, tmp_path)
    told = first.least_ms(Dense(depth=8))
    count = len(each)
    assert first.least_ms(Dense(depth=8)) == told
    again = Layers(TASK, "cpu", 1, tmp_path)
    assert again.least_ms(Dense(depth=8)) == told
    assert again.reference_ms == first.reference_ms
    assert len(each) == count, "a second process reads what the first one measured"
    assert again.least_ms(Dense(depth=8, width=0.5)) > 0
    assert len(each) > count


def test_more_layers_take_longer(tmp_path: Path, each: list[int]) -> None:
    table = Layers(TASK, "cpu", 1, tmp_path)
    times = [table.least_ms(Dense(depth=depth)) for depth in (8, 14, 20)]
    assert times == sorted(set(times))
    assert each


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_least_of_every_method_is_its_cheapest_point_by_its_macs(
    name: str, tmp_path: Path, each: list[int]
) -> None:
    """The fraction that training can leave: a value of 1 where it changes no cost."""
    table, method = Layers(TASK, "cpu", 1, tmp_path), small(name)
    deployed, share = table._cheapest(method)
    assert 0 < share <= 1
    assert share == 1 or name not in ("dense", "condconv", "dsnet")
    assert table.least_ms(method) == pytest.approx(share * table.predicted_ms(deployed))
    assert each


def test_a_prediction_changes_no_output_and_no_generator(tmp_path: Path, each: list[int]) -> None:
    """Operations in place are timed on copies."""
    network, images = reference(TASK), torch.randn(1, 1, 8, 8)
    before, state = network(images), torch.random.get_rng_state()
    table = Layers(TASK, "cpu", 1, tmp_path)
    table.predicted_ms(network)
    table.least_ms(small("skipnet"))
    assert torch.equal(network(images), before)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert each


@pytest.mark.parametrize("content", ["", "{", "[]", '{"conditions": {}}', '{"conditions": 3}'])
def test_a_torn_table_is_measured_anew(
    content: str, tmp_path: Path, each: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    table = Layers(TASK, "cpu", 1, tmp_path)
    told = table.least_ms(Dense(depth=8))
    whole = json.loads(table.path.read_text())
    table.path.write_text(content)
    with caplog.at_level(logging.WARNING):
        again = Layers(TASK, "cpu", 1, tmp_path)
    assert "measuring again" in caplog.text
    assert again.least_ms(Dense(depth=8)) > 0
    assert json.loads(table.path.read_text())["seconds"] == whole["seconds"]
    assert told > 0
    assert each


def test_other_conditions_have_a_table_of_their_own(tmp_path: Path) -> None:
    paths = [Layers(TASK, "cpu", batch, tmp_path).path for batch in (1, 2)]
    with threads(torch.get_num_threads() + 1):
        paths.append(Layers(TASK, "cpu", 1, tmp_path).path)
    assert len(set(paths)) == 3


def test_a_full_disk_is_no_error(
    tmp_path: Path, each: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert Layers(TASK, "cpu", 1, blocked).least_ms(Dense(depth=8)) > 0
    assert "could not be stored" in caplog.text
    assert each


def test_the_reference_is_the_same_everywhere() -> None:
    one, other = (reference(TASK).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_times_are_multiples_of_the_reference() -> None:
    assert Turns(ms=3.0, spread_ms=0.5, reference_ms=2.0).calibrated(1.0) == (1.5, 0.25)


@pytest.mark.parametrize(("images", "batch"), [(16, 1), (3, 1), (3, 5), (40, 32)])
def test_images_come_again_where_there_are_too_few(images: int, batch: int) -> None:
    network = reference(TASK)
    turns = in_turns(network, network, torch.randn(images, 1, 8, 8), batch)
    assert turns.ms > 0
    assert turns.reference_ms > 0
    assert turns.spread_ms >= 0
