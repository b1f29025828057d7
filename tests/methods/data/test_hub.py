"""Images through Hugging Face: Parquet, folders, the hub, and what a user can do wrong."""

import os
import pickle
import shutil
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from methods.data import sources
from methods.data.augment import Augment
from methods.data.load import Data, check, load
from methods.data.reading import hub
from methods.data.splits import Resident, Split
from methods.data.streams import Streamed
from methods.errors import DataError

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's cache nor the network is touched."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def pictures(count: int, height: int = 8, width: int = 10, seed: int = 0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for _ in range(count)
    ]


def dataset(count: int, seed: int = 0, **more: list[int]) -> datasets.Dataset:
    content = {"img": pictures(count, seed=seed), "label": [i % 3 for i in range(count)], **more}
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "label": datasets.ClassLabel(names=CLASSES),
            **{name: datasets.Value("int64") for name in more},
        }
    )
    return datasets.Dataset.from_dict(content, features=features)


def write_parquet(path: Path, count: int = 60, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(dataset(count, seed).with_format("arrow")[:], path)
    return path


def write_folder(path: Path, per_class: int = 20, classes: list[str] = CLASSES) -> Path:
    for seed, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for number, picture in enumerate(pictures(per_class, seed=seed)):
            picture.save(path / name / f"{number:03}.png")
    return path


# Hugging Face: Parquet, folders, the hub


def test_streamed_and_resident_batches_are_the_same(tmp_path: Path) -> None:
    path = str(write_parquet(tmp_path / "set.parquet"))
    held, streamed = load(path), load(path, limit_bytes=0)
    assert isinstance(held.train.store, Resident)
    assert isinstance(streamed.train.store, Streamed)
    for role in ("train", "validation", "test"):
        pairs = zip(*(epoch(getattr(data, role)) for data in (held, streamed)), strict=True)
        for (images, labels), (other_images, other_labels) in pairs:
            assert torch.equal(images, other_images)
            assert torch.equal(labels, other_labels)
            assert images.stride() == other_images.stride()
    assert torch.equal(held.test.head(3)[0], streamed.test.head(3)[0])


def epoch(split: Split) -> list[tuple[torch.Tensor, torch.Tensor]]:
    order, shifts = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    return list(
        split.batches(8, shuffle=order, augment=Augment(pad=2, flip=True, generator=shifts))
    )


def test_pixels_arrive_unchanged_with_their_labels(tmp_path: Path) -> None:
    data = load(str(write_parquet(tmp_path / "set.parquet")))
    assert (data.task.channels, data.task.height, data.task.width) == (3, 8, 10)
    assert data.task.classes == 3
    assert data.flip
    known = {picture.tobytes(): i % 3 for i, picture in enumerate(pictures(60))}
    for split in (data.train, data.validation, data.test):
        assert isinstance(split.store, Resident)
        for pixels, label in zip(split.store.pixels, split.labels, strict=True):
            assert known[pixels.numpy().tobytes()] == int(label)


def test_own_test_files_of_a_parquet_folder_are_respected(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", 40, seed=1)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", 20, seed=2)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", 12, seed=3)
    data = load(str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 12)
    assert data.test.labels.tolist() == [i % 3 for i in range(12)]


def test_parquet_without_hugging_face_marks_is_understood(tmp_path: Path) -> None:
    files = [file.read_bytes() for file in sorted(write_folder(tmp_path / "png").rglob("*.png"))]
    words = pa.array([CLASSES[i // 20] for i in range(60)])
    pq.write_table(pa.table({"photo": files, "target": words}), tmp_path / "plain.parquet")
    data = load(str(tmp_path / "plain.parquet"))
    assert data.task.classes == 3
    assert len(data.train) + len(data.validation) + len(data.test) == 60


def test_fine_labels_are_preferred(tmp_path: Path) -> None:
    content = dataset(30, coarse_label=[0] * 30).rename_column("label", "fine_label")
    pq.write_table(content.with_format("arrow")[:], tmp_path / "set.parquet")
    assert load(str(tmp_path / "set.parquet")).task.classes == 3


def test_whole_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    content = dataset(40).cast_column("label", datasets.Value("int64"))
    content = content.map(lambda row, i: {"label": [2, 10][i % 2]}, with_indices=True)
    pq.write_table(content.with_format("arrow")[:], tmp_path / "set.parquet")
    data = load(str(tmp_path / "set.parquet"))
    assert data.task.classes == 2
    assert set(data.train.labels.tolist()) == {0, 1}


def test_an_image_folder_is_read(tmp_path: Path) -> None:
    data = load(str(write_folder(tmp_path / "set")))
    assert data.task.classes == 3
    assert (len(data.train), len(data.validation), len(data.test)) == (42, 9, 9)


def test_the_division_of_an_image_folder_is_respected(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 20)
    write_folder(tmp_path / "val", 5)
    write_folder(tmp_path / "test", 6, ["dog", "eel"])
    data = load(str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (60, 15, 12)
    assert set(data.test.labels.tolist()) == {1, 2}


def test_without_a_test_split_the_validation_split_is_the_test(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 20)
    write_folder(tmp_path / "valid", 5)
    data = load(str(tmp_path))
    assert (len(data.train), len(data.validation), len(data.test)) == (54, 6, 15)


def test_classes_named_like_splits_are_classes(tmp_path: Path) -> None:
    data = load(str(write_folder(tmp_path / "vehicles", 20, ["bus", "train"])))
    assert data.task.classes == 2


def test_several_sizes_are_refused_until_one_is_asked_for(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set")
    pictures(1, 31, 17)[0].save(path / "cat" / "odd.png")
    pictures(1, 4, 30)[0].save(path / "dog" / "flat.png")
    with pytest.raises(DataError, match=r"8x10 \(60\), 31x17 \(1\).* write .*`size: 8`"):
        load(str(path))
    assert load(str(path), size=9).train.head(1)[0].shape == (1, 3, 9, 9)


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set")
    for file in path.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert load(str(path)).task.channels == 1


def test_a_centre_is_cut_from_what_is_larger(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set", 10)
    for number, file in enumerate(sorted(path.rglob("*.png"))):
        canvas = np.zeros((64, 128, 3), dtype=np.uint8)
        canvas[16:48, 48:80] = 200 + number
        Image.fromarray(canvas).save(file)
    data = load(str(path), size=28)
    assert isinstance(data.train.store, Resident)
    pixels = data.train.store.pixels[0, :, :, 0]
    assert int(pixels[14, 14]) >= 200
    assert torch.equal(pixels, pixels.flip(0))
    assert torch.equal(pixels, pixels.flip(1))
    assert int((pixels > 100).sum()) == 16 * 16


def test_a_data_set_of_the_hub_is_read_as_its_files_are(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", 40, seed=1)
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", 12, seed=3)
    through_hub = hub.read(str(tmp_path)).source(size=None, fit="crop")
    files = sources.find(str(tmp_path))
    assert through_hub.class_names == files.class_names == tuple(CLASSES)
    for role, part in files.parts.items():
        rows = np.arange(len(part.labels))
        assert np.array_equal(through_hub.parts[role].pixels(rows), part.pixels(rows))
        assert np.array_equal(through_hub.parts[role].labels, part.labels)
    assert through_hub.train.names[39] == f"{tmp_path}/train:39"


# What a user can do wrong


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'digits'"):
        load("digit")


def test_a_missing_path_is_said_to_be_missing() -> None:
    with pytest.raises(DataError, match="existing path, but '/no/such/folder'"):
        load("/no/such/folder")


@pytest.mark.parametrize("name", sources.HUB)
def test_an_unreachable_hub_is_said_in_one_line(name: str) -> None:
    with pytest.raises(DataError, match="check the network") as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="OfflineModeIsEnabled"):
        load("cifar10")
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_parquet_file_without_labels_is_refused(tmp_path: Path) -> None:
    content = dataset(9).remove_columns("label")
    pq.write_table(content.with_format("arrow")[:], tmp_path / "set.parquet")
    with pytest.raises(DataError, match=r"column of labels .* columns are \['img'\]"):
        load(str(tmp_path / "set.parquet"))


def test_a_parquet_file_without_images_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": [0, 1], "text": ["a", "b"]}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match="column of images"):
        load(str(tmp_path / "set.parquet"))


def test_a_sample_without_a_label_is_refused(tmp_path: Path) -> None:
    table = dataset(30).with_format("arrow")[:]
    labels = pa.array([None, *range(29)], type=pa.int64())
    table = table.set_column(1, "label", labels).replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "set.parquet")
    with pytest.raises(DataError, match=r"must have a label, but 1 of 30 train .*set\.parquet:0"):
        load(str(tmp_path / "set.parquet"))


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.parquet").write_text("words")
    with pytest.raises(DataError, match="readable Parquet"):
        load(str(tmp_path / "set.parquet"))
    (tmp_path / "set.csv").write_text("a,b")
    with pytest.raises(DataError, match="must be Parquet"):
        load(str(tmp_path / "set.csv"))


def test_loose_images_are_refused(tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "a.png")
    with pytest.raises(DataError, match="images without labels"):
        load(str(tmp_path))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        load(str(tmp_path))


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "set")
    whole = (path / "cat" / "003.png").read_bytes()
    (path / "cat" / "003.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cat/003\.png"):
        load(str(path))
    (path / "cat" / "003.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cat/003\.png"):
        load(str(path))


def test_a_class_unseen_in_training_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", 20)
    write_folder(tmp_path / "test", 5, ["cat", "gnu"])
    with pytest.raises(DataError, match="'gnu'"):
        load(str(tmp_path))


def test_too_few_samples_for_three_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="validation split"):
        load(str(write_folder(tmp_path / "set", 2)))


def test_one_class_is_refused(tmp_path: Path) -> None:
    data = load(str(write_folder(tmp_path / "set", 40, ["cat"])))
    with pytest.raises(DataError, match="at least 2 classes"):
        check(data, 8)


def test_a_batch_larger_than_the_training_split_is_refused(small: Data) -> None:
    check(small, len(small.train))
    with pytest.raises(DataError, match=r"batch_size=43 .* 42 training samples"):
        check(small, len(small.train) + 1)


@pytest.fixture
def small(tmp_path: Path) -> Data:
    return load(str(write_folder(tmp_path / "set")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "set.parquet")
    path.chmod(0)
    with pytest.raises(DataError, match="readable Parquet"):
        load(str(path))


def test_a_data_set_survives_the_way_to_a_worker(tmp_path: Path) -> None:

    path = str(write_parquet(tmp_path / "set.parquet"))
    for limit in (0, 1 << 30):
        data = load(path, limit_bytes=limit)
        twin = pickle.loads(pickle.dumps(data))
        assert torch.equal(twin.test.head(4)[0], data.test.head(4)[0])
    shutil.rmtree(tmp_path)
