"""The figures for papers: vector, with their fonts, as wide as a page, the same bytes each time."""

import re

import pytest
from boards import BUDGETS, routed, study_rows

from methods import METHODS
from orchestrator.board.latency import pairs, timed
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.record.events import Latency
from orchestrator.report.figures.draw import files
from orchestrator.report.figures.gains import marked, marks_text
from orchestrator.report.figures.style import marks
from orchestrator.report.palette import INK, NEUTRAL, OKABE_ITO, colour, places, run_colour


@pytest.fixture(scope="module")
def figures() -> dict[str, bytes]:
    return drawn()


def drawn() -> dict[str, bytes]:
    rows = study_rows(methods=["dense", "skipnet"], seeds=3)
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2))
    events = [
        Latency(*pair.key, batch=1, ms=2.0, p95_ms=3.0, reference_ms=3.0)
        for pair in pairs(rows, BUDGETS, "dense")
    ]
    return files(board, rows, timed(rows, BUDGETS, "dense", events))


@pytest.mark.parametrize(
    ("name", "inches"), [("accuracy", 3.5), ("pareto", 7), ("forest", 7), ("latency", 7)]
)
def test_a_pdf_has_the_width_of_print_and_embeds_its_fonts(
    figures: dict[str, bytes], name: str, inches: float
) -> None:
    content = figures[f"{name}.pdf"]
    left, _, right, _ = map(float, re.search(rb"/MediaBox \[([^]]+)\]", content)[1].split())
    assert right - left == pytest.approx(inches * 72, abs=0.1)
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"CreationDate" not in content


def test_an_svg_has_outlines_and_no_font_to_miss(figures: dict[str, bytes]) -> None:
    for name in ("pareto.svg", "forest.svg", "latency.svg"):
        text = figures[name].decode()
        assert "<svg " in text
        assert "<text" not in text


@pytest.mark.parametrize(("worth", "static"), [(0.1, False), (0.0, True)])
def test_the_marks_of_the_page_are_in_the_figures_too(worth: float, static: bool) -> None:
    rows, images = routed(worth)
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=400), images)
    assert ("static" in marks_text(board)) == static
    name = "skipnet\N{DEGREE SIGN}" if static else "skipnet"
    assert marked(board, board.cell("skipnet", 1)) == f"{name} \N{BLACK STAR}"
    assert marked(board, board.cell("dense", 1)) == "dense"
    if static:
        whole = files(board, rows, (), images)
        assert {"routing.pdf", "groups.svg"} <= whole.keys()
        assert "latency.pdf" not in whole


@pytest.mark.full
def test_the_same_board_gives_the_same_figures(figures: dict[str, bytes]) -> None:
    assert drawn() == figures


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances (WCAG 2)."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [((part + 0.055) / 1.055) ** 2.4 if part > 0.04 else part / 12.92 for part in parts]
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_method_has_its_colour_whatever_stands_beside_it() -> None:
    alone = places(["dense", "resrep"])
    whole = places([*METHODS, "mine", "another"])
    assert alone["resrep"] == whole["resrep"]
    assert "dense" not in whole
    assert sorted(whole.values()) == list(range(len(METHODS) + 1)), "no two share colour and shape"
    assert (colour(None), colour(0), colour(6)) == (INK, OKABE_ITO[0], OKABE_ITO[0])
    assert (run_colour(None), run_colour(0)) == (NEUTRAL, OKABE_ITO[0])
    assert min(contrast(NEUTRAL, paper) for paper in ("#ffffff", "#11171c")) > 3, "MLflow's papers"
    rows = study_rows(methods=["dense", "skipnet"], seeds=0)
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2))
    assert marks(board)["skipnet"][0] == colour(places(["skipnet"])["skipnet"])
    shapes = {name: marks(board)[name][1] for name in board.methods}
    assert len(set(shapes.values())) == len(shapes), "grey tells them apart too"
