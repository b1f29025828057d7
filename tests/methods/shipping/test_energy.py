"""Joules from counters that stand still, move, begin anew, or may not be read."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods.shipping import energy as counters
from methods.shipping.energy import energy

IMAGES = torch.zeros(4, 1, 2, 2)


class Draws(nn.Module):
    """Draws a tenth of a joule a call: adds it to a counter, which begins anew at a limit."""

    def __init__(self, counter: Path, limit: int) -> None:
        super().__init__()
        self.counter = counter
        self.limit = limit

    def forward(self, images: Tensor) -> Tensor:
        drawn = int(self.counter.read_text()) + 100_000
        self.counter.write_text(str(drawn % self.limit))
        return images


def package(folder: Path, number: int, *, name: str = "package-0", begins: int = 0) -> Path:
    """A RAPL zone as Linux shows it, and its counter."""
    zone = folder / f"intel-rapl:{number}"
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "energy_uj").write_text(str(begins))
    (zone / "max_energy_range_uj").write_text("262143328850")
    return zone / "energy_uj"


@pytest.mark.parametrize("begins", [0, 262143328850 - 150_000])
def test_joules_are_what_the_packages_drew_per_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: int
) -> None:
    monkeypatch.setattr(counters, "SECONDS", 0.02)
    counter = package(tmp_path, 0, begins=begins)
    package(tmp_path, 1, name="psys", begins=7)
    package(tmp_path / "intel-rapl:0", 9)
    drawn = energy([Draws(counter, 262143328850)], IMAGES, powercap=tmp_path)
    assert drawn.source == "RAPL package-0"
    assert drawn.joules == [pytest.approx(0.1 / len(IMAGES))]


def test_a_machine_without_a_counter_says_why(tmp_path: Path) -> None:
    drawn = energy([nn.Identity()], IMAGES, powercap=tmp_path)
    assert drawn == ([], "this machine has no RAPL counter")
    package(tmp_path, 0).write_text("")
    assert energy([nn.Identity()], IMAGES, powercap=tmp_path).joules == []
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.unlink()
    gone = energy([nn.Identity()], IMAGES, powercap=tmp_path)
    assert gone.source == "RAPL cannot be read: No such file or directory"
