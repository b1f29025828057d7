"""A sweep on data that changed is refused in a line, before Ray starts and anything is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pictures import square, write_classes

from methods.data.survey import survey
from methods.errors import StudyError
from orchestrator.record import contents, log
from orchestrator.record.ledger import Ledger
from orchestrator.study.check import reading
from orchestrator.study.file import Study
from orchestrator.sweep.ready import Place
from orchestrator.sweep.run import run


def swap(root: Path) -> None:
    (root / "ant").rename(root / "x")
    (root / "bee").rename(root / "ant")
    (root / "x").rename(root / "bee")


def remove(root: Path) -> None:
    (root / "bee" / "013.png").unlink()


def rewrite(root: Path) -> None:
    square(7, 7).save(root / "ant" / "002.png")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap, "80 with other pixels"),
        (remove, "1 removed (bee/013.png)"),
        (rewrite, "1 with other pixels (ant/002.png)"),
    ],
)
def test_a_changed_set_is_refused(
    tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    root, out = write_classes(tmp_path / "set", per=40), tmp_path / "runs"
    fields = {"name": "s", "data": str(root), "budgets": [5], "methods": {"dense": {}}}
    study = Study.model_validate({**fields, "recipe": {"batch_size": 16, "epochs": 1}})
    Ledger(out / "s", study).close()
    contents.write(out / "s", survey(reading(study).load(seed=study.seed)))
    log.mark_finished(out / "s" / "wal.jsonl", study.hash)
    before = {path: path.stat().st_mtime_ns for path in (out / "s").rglob("*")}
    change(root)
    with pytest.raises(StudyError) as refused:
        run(study, Place(out=out))
    assert words in str(refused.value)
    assert "isoflop data" in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in (out / "s").rglob("*")} == before
