"""What a sweep refuses before it writes anything."""

from pathlib import Path

import pytest
from faults import FILE

from methods.errors import ClusterError, DataError, StorageError, StudyError
from orchestrator.study.file import load
from orchestrator.sweep import run as sweep
from orchestrator.sweep.ready import Place


def written(folder: Path, text: str = FILE) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (("data: digits", "data: ./nowhere.parquet"), DataError, "nowhere"),
        (("batch_size: 64", "batch_size: 4096"), DataError, "batch"),
        (("[0.3, 1]", "[0.001]"), StudyError, "a budget must hold at least one configuration"),
        (
            ("search:", "resources: {gpu: 64}\nsearch:"),
            ClusterError,
            "64 workers of a trial must fit",
        ),
        (("dense:", "dnese:"), StudyError, "did you mean 'dense'?"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    tmp_path: Path, change: tuple[str, str], error: type[Exception], sentence: str
) -> None:
    study = load(written(tmp_path, FILE.replace(*change)))
    with pytest.raises(error) as caught:
        sweep.run(study, Place(out=tmp_path / "runs"))
    assert sentence in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_store_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    study = load(written(tmp_path))
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9"):
        sweep.run(study, Place(out=tmp_path / "runs", mlflow="http://127.0.0.1:9"))
    assert not (tmp_path / "runs").exists()
