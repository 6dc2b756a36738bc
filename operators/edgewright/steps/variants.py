"""A model in its forms: as it was trained, as float ONNX, and as its target runs it; each measured on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from edgewright.steps import metrics
from edgewright.steps.models import LoadedModel, ModelDocument, OnnxModel, feed
from edgewright.targets.timing import Latency, time_calls

_TIE = 1e-6
#: Smallest probability that a logarithm is taken of: what is left of 32 bits beside 1.
_SMALLEST = 1e-7
#: The decibels of a variant without any difference; infinity has no place in JSON.
MOST_DECIBELS = 200.0


@dataclass
class Variant:
    """One form of the model, measured.

    Attributes:
        target: What it was made for.
        data: The main file's bytes.
        document: Its ``model.json``.
        quality: Metrics on the held-out rows; empty where it cannot run here.
        scores: Its scores of these rows, or ``None``.
        latency: Times by rows a call; empty where they were not measured or mean nothing.
        files: Files beside the main one.
        compile_seconds: What the compiler took.
        source: Whether it is to be built elsewhere, so that its size says nothing about the hardware.
        qonnx: The same model with the bits of each number, where it was trained for that.
    """

    target: str
    data: bytes
    document: ModelDocument
    quality: dict[str, float] = field(default_factory=dict)
    scores: np.ndarray[Any, Any] | None = None
    latency: dict[int, Latency] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    compile_seconds: float = 0.0
    source: bool = False
    qonnx: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return len(self.data) + sum(map(len, self.files.values()))


@dataclass(frozen=True)
class Rows:
    """The held-out rows on which everything is proven."""

    part: str
    frame: pd.DataFrame
    y: pd.Series[Any]


@dataclass
class _Scored:
    """Scores that were computed elsewhere, in the shape of a model."""

    document: ModelDocument
    found: np.ndarray[Any, Any]

    def scores(self, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
        return self.found


def measure_onnx(variant: Variant, rows: Rows) -> None:
    """Run a variant in onnxruntime with one thread; note its quality, its times, and that it was run."""
    model = OnnxModel(variant.data, variant.document)
    note_scores(variant, model.scores(rows.frame), rows, "onnxruntime")
    arrays = feed(rows.frame, variant.document)
    timed = {batch: time_calls(model.run, arrays, batch) for batch in Latency.BATCHES}
    variant.latency = {batch: found for batch, found in timed.items() if found is not None}


def note_scores(variant: Variant, scores: np.ndarray[Any, Any], rows: Rows, runtime: str) -> None:
    """Note what a variant answered: its quality, and that it was run."""
    truth = metrics.compare(_Scored(variant.document, scores), rows.frame, rows.y)
    variant.scores = truth.scores
    variant.quality = metrics.measure(truth)
    verified = {"runtime": runtime, "part": rows.part, "rows": len(rows.y)}
    note_metrics(variant, verified, variant.quality)


def note_unverified(variant: Variant, reason: str) -> None:
    """Note that a variant was not run, and why."""
    note_metrics(variant, {"runtime": None, "unverified": reason}, {})


def note_metrics(variant: Variant, verified: dict[str, Any], quality: Mapping[str, float]) -> None:
    """Write what equal inputs always give into the variant's document."""
    kept = {"size_bytes": float(variant.size), **quality}
    variant.document = variant.document.model_copy(
        update={"metrics": {name: round(value, 9) for name, value in kept.items()}, "verified": verified}
    )


def compare_variants(source: LoadedModel, exported: Variant, variant: Variant, rows: Rows) -> dict[str, float]:
    """Return what gates may name: the variant against the trained model, by quality, size and speed.

    ``*_drop`` is the trained model's figure minus the variant's; ``rmse_ratio``, ``size_ratio`` and ``latency_ratio``
    are the variant's figure by that of the trained model (quality) or of the float ONNX model (size, speed).
    """
    truth = metrics.compare(source, rows.frame, rows.y)
    found = {
        "rows": float(len(rows.y)),
        "verified": float(variant.scores is not None),
        "size_bytes": float(variant.size),
        "float_size_bytes": float(exported.size),
        "compile_seconds": variant.compile_seconds,
    }
    if not variant.source:
        found["size_ratio"] = variant.size / exported.size
    if "integer_nodes" in variant.document.details:
        found["integer_nodes"] = float(variant.document.details["integer_nodes"])
    if variant.scores is None:
        return found
    return found | _quality(truth, variant) | _speed(exported, variant)


def _quality(truth: metrics.Truth, variant: Variant) -> dict[str, float]:
    assert variant.scores is not None
    base = metrics.measure(truth)
    found = dict(variant.quality)
    for name in ("accuracy", "roc_auc", "r2"):
        if name in base and name in variant.quality:
            found[f"{name}_drop"] = base[name] - variant.quality[name]
    if "rmse" in base:
        # an exact model's error is 64-bit noise; no 32-bit variant can be held against that
        smallest = float(np.finfo(np.float32).eps) * max(1.0, float(np.abs(truth.y).max()))
        found["rmse_ratio"] = max(variant.quality["rmse"], smallest) / max(base["rmse"], smallest)
    before, after = truth.scores, variant.scores
    found["max_difference"] = float(np.abs(before - after).max())
    if truth.problem == "classification":
        found["agreement"] = _agreement(before, after)
        before, after = logits(before), logits(after)
        found["max_logit_difference"] = float(np.abs(before - after).max())
    found["sqnr_db"] = sqnr_db(before, after)
    return found


def _speed(exported: Variant, variant: Variant) -> dict[str, float]:
    found: dict[str, float] = {}
    for batch, latency in variant.latency.items():
        middle = "" if batch == 1 else f"_{batch}"
        found[f"latency{middle}_us"] = latency.p50
        found[f"latency{middle}_p99_us"] = latency.p99
        base = exported.latency.get(batch)
        if base is not None:
            found[f"float_latency{middle}_us"] = base.p50
            found[f"latency{middle}_ratio"] = latency.p50 / base.p50
    return found


def _agreement(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> float:
    """Return the share of rows whose decision is one that the trained model finds best (a tie has two of them)."""
    chosen = np.take_along_axis(before, after.argmax(axis=1)[:, None], axis=1)[:, 0]
    return float(np.mean(chosen >= before.max(axis=1) - _TIE))


def logits(probabilities: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the logits that a softmax makes these probabilities of, centred in each row.

    A softmax loses nothing but a constant a row, so every target's logits can be had from its probabilities, whatever
    its graph calls them. Probabilities below 1e-7 count as that.
    """
    logarithms = np.log(np.clip(probabilities, _SMALLEST, 1.0))
    centred: np.ndarray[Any, Any] = logarithms - logarithms.mean(axis=1, keepdims=True)
    return centred


def sqnr_db(signal: np.ndarray[Any, Any], noisy: np.ndarray[Any, Any]) -> float:
    """Return the signal-to-quantization-noise ratio, ``10 log10(sum(s^2) / sum((s - n)^2))`` decibels, at most 200."""
    noise = float(((signal - noisy) ** 2).sum())
    power = float((signal**2).sum())
    if noise == 0 or power == 0:
        return MOST_DECIBELS if noise == 0 else 0.0
    return float(min(10 * np.log10(power / noise), MOST_DECIBELS))
