"""Folders of images as rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgewright.errors import DataError
from edgewright.steps.data import Dataset


def opened(result: Any) -> Dataset:
    return Dataset.open(Path(result.outputs["dataset"].uri.removeprefix("file://")))


@pytest.fixture
def pictures(pipeline_folder: Path) -> Path:
    """600 images: dark ones and bright ones, each kind in a folder of its own."""
    folder = pipeline_folder / "pictures"
    for kind, low in (("bright", 150), ("dark", 0)):
        (folder / kind).mkdir(parents=True)
        for number in range(300):
            values = np.full((12, 10, 3), low + number % 100, dtype=np.uint8)
            Image.fromarray(values).save(folder / kind / f"{number:03}.png")
    return folder


def test_folders_name_the_labels(pictures: Path, run_step: Any):
    config = {"source": "pictures", "label": "kind", "images": {"size": [4, 3]}, "split": {"test": 0.25}}
    result = run_step("ingest", config)
    found = opened(result)
    assert [c["name"] for c in found.columns] == [*(f"pixel_{n}" for n in range(12)), "kind"]
    assert found.manifest["classes"] == {"bright": 300, "dark": 300}
    assert found.manifest["source"]["images"] == {"files": 600, "size": [4, 3], "color": "gray", "scale": "0..1"}
    frame = found.frame("train")
    assert frame["pixel_0"].between(0, 1).all()
    assert frame.groupby("kind")["pixel_0"].min()["bright"] == pytest.approx(150 / 255, abs=0.05)
    sheet = Image.open(io.BytesIO((found.folder / "preview.png").read_bytes()))
    assert sheet.size == (8 * 72, 6 * (72 + 14))
    again = run_step("ingest", config, run="r2")
    assert again.cache.hit
    (pictures / "dark" / "000.png").unlink()
    assert not run_step("ingest", config, run="r3").cache.hit


def test_a_csv_names_the_labels_and_colours_are_three_values(pictures: Path, run_step: Any, pipeline_folder: Path):
    rows = [f"{file.relative_to(pictures)},{int(file.parent.name == 'dark')}" for file in pictures.rglob("*.png")]
    (pipeline_folder / "labels.csv").write_text("file,dark\n" + "\n".join(rows) + "\n")
    images = {"size": [2, 2], "labels": "labels.csv", "color": "rgb", "scale": "-1..1"}
    config = {"source": "pictures", "label": "dark", "types": {"dark": "integer"}, "images": images}
    found = opened(run_step("ingest", config))
    assert len(found.features) == 12
    assert found.manifest["classes"] == {"0": 300, "1": 300}
    assert found.frame("train")["pixel_3"].min() == -1.0


def test_an_image_that_lies_on_its_side_is_turned(pipeline_folder: Path, run_step: Any):
    (pipeline_folder / "one").mkdir()
    image = Image.fromarray(np.array([[0, 255]], dtype=np.uint8).repeat(8, 0).repeat(4, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image.save(pipeline_folder / "one" / "a.png", exif=exif)
    found = opened(run_step("ingest", {"source": "one", "images": {"size": [1, 2], "labels": "none"}}))
    row = found.frame("train").iloc[0]
    assert row["pixel_0"] < 0.3
    assert row["pixel_1"] > 0.7


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "loose.png").write_bytes((folder / "dark/000.png").read_bytes()), "1 images lie in"),
        (lambda folder: (folder / "dark" / "000.png").write_bytes(b"no image"), r"dark/000.png: cannot be read as an"),
        (lambda folder: [path.unlink() for path in folder.rglob("*.png")], "there is no image"),
    ],
)
def test_what_does_not_fit_is_said(pictures: Path, run_step: Any, spoil: Any, says: str):
    spoil(pictures)
    with pytest.raises(DataError, match=says):
        run_step("ingest", {"source": "pictures", "label": "kind", "images": {"size": [4, 3]}})


def test_labels_that_lack_or_belong_to_nothing(pictures: Path, run_step: Any, pipeline_folder: Path):
    config = {"source": "pictures", "label": "kind", "images": {"size": [4, 3], "labels": "labels.csv"}}
    table = pipeline_folder / "labels.csv"
    for text, says in (
        ("name,kind\n", "no column 'file'"),
        ("file,kind\ndark/000.png,x\n", "599 images stand not in labels.csv"),
        ("file,kind\nnone.png,x\n", "no images of the folder, such as none.png"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=says):
            run_step("ingest", config)
