"""Images that are held larger than a network sees them: `resize` beside `size`."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from methods.data.load import Arrays, Reading, load
from methods.dense import Dense
from methods.errors import DataError, StudyError
from methods.training.loop import Recipe, train
from orchestrator.study.check import prepare
from orchestrator.study.file import Study
from orchestrator.trial.job import Job, Settings, decode_job, encode_job


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 40 photos of several sizes."""
    top, draw = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(80):
        place = top / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(exist_ok=True)
        small = draw.integers(0, 256, (5, 6, 3), np.uint8)
        side = (30 + number % 7, 40 + number % 5)
        Image.fromarray(small).resize(side, Image.Resampling.BICUBIC).save(place)
    return top


def test_evaluation_sees_the_centre_of_the_shorter_side_at_resize(folder: Path) -> None:
    """The usual protocol: the shorter side to 20, then the centre of 16, by Pillow."""
    data = load(str(folder), size=16, resize=20)
    assert (data.task.height, data.task.width) == (16, 16)
    assert data.origin is not None
    (role, rows) = data.origin.cut["test"]
    names = data.origin.source.parts[role].names
    images, _ = data.test.head(len(rows))
    for image, row in zip(images, rows, strict=True):
        photo = Image.open(folder / names[row])
        scale = 20 / min(photo.size)
        wide, tall = (20 / scale for _ in range(2))
        left, top = (photo.width - wide) / 2, (photo.height - tall) / 2
        whole = photo.resize(
            (20, 20), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + tall)
        )
        centre = torch.from_numpy(np.array(whole.crop((2, 2, 18, 18)))).permute(2, 0, 1).float()
        expected = (centre - data.test.mean[:, None, None]) / data.test.std[:, None, None]
        torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("crop", ["shift", "resized"])
def test_streamed_shared_and_held_images_train_alike(folder: Path, crop: str) -> None:
    recipe = Recipe.of({"epochs": 2, "batch_size": 16, "crop": crop, "colour": 0.3, "mixup": 0.2})
    held = load(str(folder), size=16, resize=20)
    arrays = Arrays.of(held)
    assert arrays is not None
    shared = pickle.loads(pickle.dumps(arrays)).on("cpu")
    streamed = load(str(folder), size=16, resize=20, limit_bytes=0)
    losses = [
        [epoch.loss for epoch in train(Dense(depth=8, width=0.25), data, recipe, seed=1)]
        for data in (held, shared, streamed)
    ]
    assert losses[0] == losses[1] == losses[2]


def test_resize_of_the_size_itself_changes_nothing_but_the_margin(folder: Path) -> None:
    data = load(str(folder), size=16, resize=16, fit="stretch")
    plain = load(str(folder), size=16, fit="stretch")
    assert data.train.size is None
    assert torch.equal(data.train.head(9)[0], plain.train.head(9)[0])


@pytest.mark.parametrize("more", [{"resize": 8, "size": 16}, {"resize": 20}])
def test_a_resize_below_the_size_is_refused(
    folder: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="resize must be at least the size that is cut out, but"):
        load(str(folder), **more)
    fields = {"name": "mine", "data": str(folder), "budgets": [1.0], "methods": {"dense": {}}}
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({**fields, **more}))
    with pytest.raises(StudyError, match="`resize` must be at least the `size` that is cut out"):
        Study.read(file)


def test_a_study_reads_as_it_says(folder: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "name": "mine",
        "data": str(folder),
        "size": 16,
        "budgets": [9.0],
        "recipe": {"epochs": 2, "batch_size": 16},
        "methods": {"dense": {"depth": 8, "width": 0.25}},
    }
    plain = Study.model_validate(fields)
    assert "resize" not in plain.model_dump()
    study = Study.model_validate({**fields, "resize": 20})
    assert study.hash != plain.hash
    assert prepare(study).data.train.size == (16, 16)
    settings = Settings(str(folder), 0, tmp_path, "cpu", 1, size=16, resize=20)
    job = decode_job(encode_job(Job("dense-00000", "dense", {}, "search", 1, settings)))
    assert job.settings == settings
    assert job.settings.read().train.size == (16, 16)
    assert Reading(str(folder), 16, "crop", 20).load().train.size == (16, 16)
