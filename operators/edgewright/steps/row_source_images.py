"""Images of a folder as rows: resized, brought to one range of values, one column a pixel; and a sheet to look at."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from edgewright.artifacts.digest import digest_json, sha256_file
from edgewright.errors import DataError
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.context import StepContext
from edgewright.steps.row_sources import Part, RowSource
from edgewright.steps.sources import local_folder

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
#: Images of one part.
_BLOCK = 256
#: The sheet: columns, rows, and the side of one image.
_COLUMNS, _ROWS, _SIDE, _CAPTION = 8, 6, 72, 14
_RANGES = {"0..1": (255.0, 0.0), "-1..1": (127.5, 1.0), "0..255": (1.0, 0.0)}
SHEET = "preview.png"


class ImageSource(RowSource):
    """Images of a folder and those below it, sorted by their paths.

    Args:
        config: The step's configuration, with ``images``.
        context: The step.

    Raises:
        DataError: there is no folder, no image, or an image without a label.
    """

    def __init__(self, config: IngestConfig, context: StepContext) -> None:
        assert config.images is not None
        self.how = config.images
        self.shown = config.address
        self._size = (self.how.size[0], self.how.size[1])
        self.parallel = self.how.parallel
        self._label = config.label
        self._folder = local_folder(config.address, context)
        self._files = images_of(self._folder)
        if not self._files:
            hint = f"it may hold {', '.join(_SUFFIXES)}, also in folders of their own"
            raise DataError("there is no image in this folder", where=self.shown, hint=hint)
        self._labels = self._find_labels(context)

    def parts(self) -> list[Part]:
        """Return the images by hundreds."""
        return [
            Part(f"{number:05}", {"from": start}) for number, start in enumerate(range(0, len(self._files), _BLOCK))
        ]

    def read(self, part: Part) -> Iterator[pa.RecordBatch]:
        """Yield the rows of one part's images."""
        start = part.at["from"]
        files = self._files[start : start + _BLOCK]
        pixels = np.stack([self._pixels(file) for file in files]).reshape(len(files), -1)
        divisor, less = _RANGES[self.how.scale]
        values = np.ascontiguousarray((pixels / divisor - less).T)
        arrays = [pa.array(row) for row in values]
        names = [f"pixel_{number}" for number in range(len(arrays))]
        if self._label is not None:
            arrays.append(pa.array([self._labels[file] for file in files], pa.string()))
            names.append(self._label)
        yield pa.RecordBatch.from_arrays(arrays, names=names)

    def describe(self) -> dict[str, Any]:
        """Return how images became rows, which a service must do too."""
        return {"images": {"files": len(self._files), **self.how.model_dump(include={"size", "color", "scale"})}}

    def attachments(self) -> dict[str, bytes]:
        """Return a sheet of images, evenly chosen, each with its label."""
        return {SHEET: self._sheet()}

    # -- labels ------------------------------------------------------------------------------------------------

    def _find_labels(self, context: StepContext) -> dict[Path, str]:
        if self.how.labels == "none" or self._label is None:
            return {}
        if self.how.labels == "folders":
            loose = [file for file in self._files if file.parent == self._folder]
            if loose:
                raise self._unlabelled(loose, "lie in no folder that names their label")
            return {file: file.parent.name for file in self._files}
        known = self._read_labels(context.path(self.how.labels))
        lacking = [file for file in self._files if file not in known]
        if lacking:
            raise self._unlabelled(lacking, f"stand not in {self.how.labels}")
        return known

    def _read_labels(self, path: Path) -> dict[Path, str]:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            rows = csv.DictReader(opened)
            lacking = [name for name in ("file", str(self._label)) if name not in (rows.fieldnames or ())]
            if lacking:
                hint = f"columns are: {', '.join(rows.fieldnames or ())}"
                raise DataError(f"there is no column {lacking[0]!r}", where=self.how.labels, hint=hint)
            found = {self._folder / row["file"]: row[str(self._label)] for row in rows}
        strangers = sorted(set(found) - set(self._files))
        if strangers:
            raise DataError(
                f"{len(strangers)} files are named that are no images of the folder, such as {strangers[0].name}",
                where=self.how.labels,
            )
        return found

    def _unlabelled(self, files: list[Path], why: str) -> DataError:
        names = ", ".join(str(file.relative_to(self._folder)) for file in files[:3])
        hint = "label them, remove them, or say labels: none"
        return DataError(f"{len(files)} images {why}, such as {names}", where=self.shown, hint=hint)

    # -- pixels ------------------------------------------------------------------------------------------------

    def _pixels(self, file: Path) -> Any:
        image = self._opened(file)
        return np.asarray(image.resize(self._size, resample=2), dtype=np.float64)  # 2: bilinear

    def _opened(self, file: Path) -> Any:
        from PIL import Image, ImageOps

        try:
            with Image.open(file) as image:
                upright = ImageOps.exif_transpose(image)  # cameras say which side is up, and most readers turn it
                return upright.convert("L" if self.how.color == "gray" else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            name = file.relative_to(self._folder)
            raise DataError(f"cannot be read as an image: {error}", where=f"{self.shown}/{name}") from error

    def _sheet(self) -> bytes:
        from PIL import Image, ImageDraw

        count = min(len(self._files), _COLUMNS * _ROWS)
        chosen = [self._files[number * len(self._files) // count] for number in range(count)]
        height = -(-count // _COLUMNS) * (_SIDE + _CAPTION)
        sheet = Image.new("RGB", (_COLUMNS * _SIDE, height), "white")
        draw = ImageDraw.Draw(sheet)
        for number, file in enumerate(chosen):
            x, y = number % _COLUMNS * _SIDE, number // _COLUMNS * (_SIDE + _CAPTION)
            small = self._opened(file).resize(self._size, resample=2).resize((_SIDE - 2, _SIDE - 2), resample=0)
            sheet.paste(small, (x, y))
            draw.text((x + 1, y + _SIDE - 1), self._labels.get(file, file.stem)[:11], fill="black")
        opened = io.BytesIO()
        sheet.save(opened, "PNG")
        return opened.getvalue()


def images_of(folder: Path) -> list[Path]:
    """Return the images of a folder and those below it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def folder_state(config: IngestConfig, context: StepContext) -> dict[str, Any]:
    """Return what identifies the images and their labels, for the cache."""
    assert config.images is not None
    folder = local_folder(config.address, context)
    files = [[str(path.relative_to(folder)), sha256_file(path)] for path in images_of(folder)]
    labels = config.images.labels
    return {
        "images": digest_json(files),
        "labels": labels if labels in ("folders", "none") else sha256_file(context.path(labels)),
    }
