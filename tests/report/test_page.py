"""The report's files, its bytes and its words."""

import dataclasses
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from boards import BUDGETS, routed, study_rows
from reports import PROVENANCE, content, text_of, write

import orchestrator.report
from orchestrator.board.latency import timed
from orchestrator.board.leaderboard import leaderboard
from orchestrator.board.rules import Rules
from orchestrator.board.verdict import verdict
from orchestrator.record.events import Latency
from orchestrator.record.evidence import PerImage
from orchestrator.report import frames
from orchestrator.report.content import Report
from orchestrator.report.groups import groups
from orchestrator.report.interactive.scripts import scripts
from orchestrator.report.page import SECTIONS, page
from orchestrator.report.terminal import terminal

FIGURES = ("accuracy", "pareto", "forest", "latency", "groups")
FORMATS = ("svg", "pdf", "png")
FILES = {
    "groups.csv",
    "latency.csv",
    "leaderboard.csv",
    "leaderboard.parquet",
    "seeds.csv",
    "pairs.csv",
    "search.csv",
    *(f"{name}.{kind}" for name in FIGURES for kind in FORMATS),
    "provenance.json",
    "report.html",
}


@pytest.mark.full
def test_the_same_rows_give_the_same_bytes(report, tmp_path):
    rows = study_rows()
    random.Random(5).shuffle(rows)
    _, again = write(rows, tmp_path / "again")
    assert {path.name for path in again.parent.iterdir()} == FILES
    for name in FILES:
        assert (again.parent / name).read_bytes() == (report[1].parent / name).read_bytes(), name


def test_the_top_five_are_a_column_where_there_are_many_classes(undrawn):
    rows = [
        dataclasses.replace(row, test_top5=0.875) if row.role == "confirm" else row
        for row in study_rows(methods=["dense", "skipnet"], seeds=2)
    ]
    whole = content(rows)
    text = text_of(terminal(whole.board))
    assert "top-5 %" in text
    assert text.count("87.50") == len(whole.board.cells)
    assert page(whole).count('<span class="sub">top-5 87.50</span>') == len(whole.board.cells)
    assert set(frames.board_table(whole.board)["top5"]) == {0.875}
    few = leaderboard(study_rows(seeds=1), Rules(budgets=BUDGETS, primary=2))
    assert "top-5" not in text_of(terminal(few))
    assert frames.board_table(few)["top5"].isna().all()


def test_the_tables_say_what_the_board_says(report):
    board, file = report
    table = pd.read_csv(file.parent / "leaderboard.csv")
    assert len(table) == len(board.cells)
    for cell, record in zip(board.cells, table.to_dict("records"), strict=True):
        assert (record["method"], record["n"]) == (cell.method, cell.n)
        assert record["mean"] == pytest.approx(cell.accuracy.mean)
        assert record["macs_mean_m"] * 1e6 == pytest.approx(cell.macs_mean)
    assert list(table["best"]) == [board.leads(cell) for cell in board.cells]
    assert table["best"].sum() == len(BUDGETS)
    top = table.loc[table.groupby("budget_mmac")["mean"].idxmax()]
    assert top["best"].all()
    assert text_of(terminal(board)).count("\N{BLACK STAR}") == len(BUDGETS) + 1, "and its legend"
    exact = pd.read_parquet(file.parent / "leaderboard.parquet")
    pd.testing.assert_frame_equal(exact[["mean", "lo"]], table[["mean", "lo"]])
    seeds = pd.read_csv(file.parent / "seeds.csv")
    assert len(seeds) == sum(cell.n for cell in board.cells)
    assert len(pd.read_csv(file.parent / "pairs.csv")) == len(board.pairs)


def test_provenance_lists_every_row_left_out(report):
    board, file = report
    evidence = json.loads((file.parent / "provenance.json").read_text())
    assert evidence["study_hash"] == "ab12"
    assert len(evidence["board"]["excluded"]) == len(board.excluded) == 12


def test_the_page_stands_alone(report):
    board, path = report
    html = path.read_text()
    for script in scripts():
        assert html.count(f"<script>{script}</script>") == 1
        html = html.replace(f"<script>{script}</script>", "")
    assert re.findall(r"<script[^>]*>", html) == ['<script type="application/json" id="data">']
    assert "default-src &#39;none&#39;" in html
    assert verdict(board) in html.replace("&gt;", ">").replace("&lt;", "<").replace("&#39;", "'")
    assert "@import" not in html
    fetched = re.findall(r'(?:src|href)="([^"#]*)"', html)
    assert all(where.startswith("data:") for where in fetched)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert "MACs (fvcore FLOPs)" in html


def test_every_table_is_reached_by_keyboard_and_named(report):
    class Tables(HTMLParser):
        regions, tables = 0, 0

        def handle_starttag(self, tag, attrs):
            found = dict(attrs)
            self.tables += tag == "table"
            named = "aria-label" in found or "aria-labelledby" in found
            self.regions += found.get("tabindex") == "0" and found.get("role") == "region" and named

    parser = Tables()
    parser.feed(report[1].read_text())
    assert parser.tables == parser.regions > 4


@pytest.mark.parametrize("seeds", [0, 1, 3])
def test_a_board_with_few_seeds_is_written(seeds):
    whole = content(study_rows(seeds=seeds, methods=["dense", "skipnet"], budgets=[2]), [2])
    html = page(whole)
    if seeds == 0:
        assert "Not confirmed yet" in html
        assert "validation" in text_of(terminal(whole.board))
        assert "not confirmed yet" in html
    else:
        assert "cannot be tested" in html


def test_an_empty_board_is_written(tmp_path):
    board, path = write([], tmp_path)
    assert "no point" in path.read_text()
    assert "no point" in text_of(terminal(board))


def test_markup_in_a_name_is_text(undrawn):
    rows = study_rows(seeds=0, methods=["dense", "skipnet"])
    rows[13] = type(rows[13])(**{**vars(rows[13]), "reason": "<script>alert(1)</script>[bold]"})
    html = page(content(rows, [2]))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;[bold]" in html
    assert html.count("<script>") == len(scripts())
    assert html.count("\\u003cscript\\u003ealert(1)") <= 1


def test_the_terminal_keeps_to_80_columns_and_needs_no_colour(report):
    board, _ = report
    text = text_of(terminal(board))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [word for line in lines for word in line.split()[:1] if word in ("effort", "budget")]
    assert heads == ["effort", "budget"], "what is read first stands last"
    assert verdict(board)[:30] not in text, "it follows, below where the report lies"
    assert "…" not in text
    assert "letters" in text


def test_noise_and_the_control_are_said_in_words():
    rows = study_rows(budgets=[2])
    for row in [row for row in rows if row.method == "dense"]:
        again = {"method": "dense-again", "trial": f"x{row.trial}", "config": f"x{row.config}"}
        shift = None if row.test_acc is None else row.test_acc + 0.01
        rows.append(dataclasses.replace(row, test_acc=shift, **again))
    controls = {"dense-again": "dense"}
    board = leaderboard(
        rows, Rules(budgets=[2], primary=2, chance=0.1, controls=controls, images=500)
    )
    html = page(Report(board=board, rows=rows, provenance=PROVENANCE))
    assert "A/A control, not tested" in html
    assert '<span class="sub">noise</span>' in html
    assert "differ by up to 1.00 points" in html
    assert "and test images, by their number alone, not paired" in html
    pairs = frames.pairs_table(board)
    assert set(pairs[pairs.noise].method + pairs[pairs.noise].other) >= {"densedense-again"}
    text = text_of(terminal(board))
    assert "~" in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_section_has_a_file_and_an_empty_one_is_left_out():
    templates = Path(orchestrator.report.__file__).parent / "templates" / "sections"
    assert {path.name for path in templates.iterdir()} == {f"{n}.html.j2" for n in SECTIONS}
    rows = study_rows(seeds=0)
    board = leaderboard(rows, Rules(budgets=BUDGETS, primary=2, chance=0.1))
    html = page(Report(board=board, rows=rows, provenance=PROVENANCE))
    shown = re.findall(r'<section aria-labelledby="(\w+)"', html)
    assert set(SECTIONS) - set(shown) == {
        "gain",
        "best",
        "seeds",
        "routing",
        "groups",
        "latency",
        "costs",
        "reach",
        "curves",
        "importance",
    }
    assert re.findall(r'<a href="#(\w+)">', html) == shown


def test_latency_and_cost_stand_on_the_page_and_in_the_terminal(report):
    html = report[1].read_text()
    section = html.split('<section aria-labelledby="latency"')[1].split("</section>")[0]
    assert section.count("<tr>") == 1 + 3 * len(BUDGETS) * 2
    assert ">1.50<" in section
    assert "on a CPU" in section
    assert "in the fastest of its exact forms" in section
    costs = html.split('<section aria-labelledby="costs"')[1].split("</section>")[0]
    assert costs.count("<svg") == len(BUDGETS), "dense and slimming cost the same for every image"
    frame = pd.read_csv(report[1].parent / "latency.csv")
    assert len(frame) == 3 * len(BUDGETS) * 2
    assert (frame["forms"] == "channels last").equals(frame["batch"] == 64)
    assert np.allclose(frame["honesty"] * frame["macs_speed_up"], frame["speed_up"])
    told = [Latency("x", "", "y", "", reason="gone")]
    assert timed(study_rows(), BUDGETS, "dense", told) == []


def test_what_is_exploratory_says_so(report):
    html = report[1].read_text()
    for name in ("reach", "pareto", "latency", "curves"):
        section = html.split(f'<section aria-labelledby="{name}"')[1].split("</section>")[0]
        assert "Exploratory" in section, name


def test_the_worth_of_routing_and_the_groups_of_images_are_shown():
    """A static network is called so wherever it stands, and a dynamic one nowhere."""
    for worth, word in ((0.1, "dynamic"), (0.0, "static")):
        rows, images = routed(worth)
        board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=400), images)
        html = page(Report(board=board, rows=rows, provenance=PROVENANCE, images=images))
        section = html.split('<section aria-labelledby="routing"')[1].split("</section>")[0]
        assert word in section.split("<tbody>")[1]
        assert (word == "static") == ('<span class="sub flag">static</span>' in html)
        assert (word == "static") == ("skipnet\N{DEGREE SIGN}" in text_of(terminal(board)))
        marked = frames.board_table(board).query("static")
        assert list(marked["method"]) == (["skipnet"] if word == "static" else [])
        assert "fifth of the images" not in html.partition('id="data"')[0], (
            "the data set states difficulties"
        )
        assert html.count(' by class"') == html.count(' by difficulty"') == 2
        table = groups(board, images)
        by_class = [group for group in table if group.kind == "class"]
        assert sum(group.images for group in by_class) == 400
        hard = [group.accuracy.mean for group in table if group.kind == "difficulty"]
        assert hard == [1.0, 1.0, 1.0, 1.0, 0.25], "the last 60 images are wrong"


def test_the_loss_of_the_baseline_stands_in_for_a_difficulty():
    rows, images = routed(0.1)
    draw = np.random.default_rng(0)
    for row in rows:
        if row.role == "confirm":
            right = np.arange(400) < 340
            macs = np.linspace(1, 2, 400)
            images[row.trial, ""] = PerImage(
                right, macs, np.zeros(400, int), losses=draw.random(400) - right
            )
    board = leaderboard(rows, Rules(budgets=(1,), primary=1, images=400), images)
    parts = [g for g in groups(board, images) if g.method == "skipnet" and g.kind == "loss"]
    assert [part.images for part in parts] == [80] * 5
    assert parts[0].accuracy.mean == 1.0
    assert parts[-1].accuracy.mean == 0.25
