"""PyTorch modules as trained models; runs where PyTorch is installed (the extra torch)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.models import Workplace

from edgewright.artifacts import ArtifactRef
from edgewright.errors import UserCodeError
from edgewright.steps.models import load_model, read_document

pytest.importorskip("torch")

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, out):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, out))

    def forward(self, rows):
        return {forward}

def fit(data):
    torch.manual_seed(data.seed)
    return Net({out})
"""


def table(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 3)), columns=["a", "b", "c"])
    return frame.assign(y=np.select([frame.a < -0.4, frame.a < 0.4], ["low", "middle"], "high"))


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def dataset(place: Workplace) -> ArtifactRef:
    return place.dataset({"train": table(200, 1), "test": table(60, 2)}, "y")


def train(place: Workplace, data: ArtifactRef, forward: str = "self.layers(rows)", out: int = 3) -> ArtifactRef:
    place.model_py(CODE.replace("{forward}", forward).replace("{out}", str(out)))
    return place.run("train", data=data, entry="model.py:fit").outputs["model"]


def test_a_module_becomes_onnx_that_gives_probabilities(place: Workplace) -> None:
    data = dataset(place)
    model = train(place, data)
    folder = place.store.fetch(model)
    document = read_document(folder)
    assert (document.format, document.target, document.classes) == ("onnx", "onnx", ["high", "low", "middle"])
    assert not list(folder.glob("*.pkl"))
    scores = load_model(folder).scores(table(7, 3))
    assert scores.shape == (7, 3)
    assert np.allclose(scores.sum(axis=1), 1)
    result = place.run("quantize", model=model, data=data, gates={"agreement": ">= 0.9", "verified": True})
    assert result.metrics["integer_nodes"] > 0


def test_equal_seeds_give_equal_bytes(place: Workplace) -> None:
    data = dataset(place)
    first = train(place, data)
    request = place.request("train", "again", data=data, entry="model.py:fit")
    request.cache = "off"
    from edgewright.steps.execute import execute

    assert execute(request, store=place.store).outputs["model"].sha256 == first.sha256


def test_regression(place: Workplace) -> None:
    frames = {"train": table(200, 1), "test": table(60, 2)}
    data = place.dataset({name: frame.assign(y=frame.a * 2.5) for name, frame in frames.items()}, "y")
    model = train(place, data, out=1)
    assert load_model(place.store.fetch(model)).scores(table(5, 3)).shape == (5, 1)


@pytest.mark.parametrize(
    ("forward", "out", "words"),
    [
        ("self.layers(rows)", 2, r"gives \[64, 2\] for 64 rows"),
        ("self.layers(rows.view(-1, 5))", 3, "does not run on"),
        ("self.layers(rows) if rows.sum() > 1e9 else self.layers(-rows) * float(rows.sum())", 3, "answers differently"),
    ],
)
def test_modules_that_cannot_be_used_say_why(place: Workplace, forward: str, out: int, words: str) -> None:
    with pytest.raises(UserCodeError, match=words):
        train(place, dataset(place), forward, out)
