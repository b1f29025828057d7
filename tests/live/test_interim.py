"""A board while the sweep runs: what the search gave on validation, and nothing else."""

from pathlib import Path

from logs import SECRET, begun, driver, search, start, whole, write

from orchestrator.live import watch
from orchestrator.live.follow import Follower
from orchestrator.live.watch import Watch


def test_an_interim_board_says_so_and_holds_no_test_figure(tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    confirmed = [event for i in (1, 2) for event in whole(f"dense-00000-seed{i}")]
    write(folder, [*search(), *confirmed, start("skipnet-00000-seed1")])
    watched = Watch(Follower(folder))
    with driver(folder):
        watched.look()
    board, (_, told) = watched.board(), watched.news(0, 0)
    assert board is not None
    text = board.decode()
    assert "Interim: this board claims nothing" in text
    assert "no method is ahead" in text
    assert "validation 50.00" in text
    for content in (text, told):
        assert f"{SECRET}"[:6] not in content
        assert f"{100 * SECRET:.2f}" not in content
    main = text[text.index("<main>") : text.index("</main>")]
    for claim in ("highest mean", "separated", "Not confirmed yet", "seed1", "Test accuracy in"):
        assert claim not in main, claim


def test_a_board_is_drawn_when_asked_for_and_in_a_tenth_of_the_time_at_most(
    tmp_path: Path, undrawn: None, monkeypatch
) -> None:
    folder = tmp_path / "watched"
    drawn: list[int] = []
    monkeypatch.setattr(watch, "interim", lambda source: drawn.append(len(source.rows)) or "page")
    clock = [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    watched = Watch(Follower(folder))
    watched.look()
    assert watched.board() is None
    write(folder, [begun(), *whole("dense-00000")])
    watched.look()
    assert not drawn, "nobody has asked"
    assert watched.board() == watched.board() == b"page"
    assert drawn == [1]
    watched._next = 5.0  # the drawing took half a second
    write(folder, whole("skipnet-00000"), mode="a")
    watched.look()
    watched.board()
    assert drawn == [1]
    clock[0] = 5.0
    watched.look()
    watched.board()
    assert drawn == [1, 2]
    watched.look()
    watched.board()
    assert drawn == [1, 2], "no trial has ended since"


def test_a_board_that_cannot_be_drawn_is_left_out(tmp_path: Path, monkeypatch, caplog) -> None:
    folder = tmp_path / "watched"
    write(folder, [begun(), *whole("dense-00000")])
    watched = Watch(Follower(folder))
    watched.look()
    monkeypatch.setattr(watch, "interim", lambda source: 1 / 0)
    assert watched.board() is None
    assert "could not be drawn" in caplog.text
