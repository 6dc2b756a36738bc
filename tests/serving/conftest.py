from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import prediction_service as support


@pytest.fixture
def releases(tmp_path: Path) -> support.ReleaseMaker:
    return support.ReleaseMaker(tmp_path / "releases")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[support.ServiceProcess]:
    """A running service whose releases come from a folder."""
    with support.running(tmp_path / "home", f"file://{tmp_path / 'releases'}") as running:
        yield running


@pytest.fixture(scope="package")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.ServiceProcess]:
    """A service with three models that the tests only ask: bracelet (default), price, city."""
    root = tmp_path_factory.mktemp("answering")
    maker = support.ReleaseMaker(root / "releases")
    maker.make(1)
    price = [
        {"name": "rooms", "type": "number", "missing": False},
        {"name": "garden", "type": "boolean", "missing": False},
    ]
    maker.make(
        4, {"onnx": support.regressor(1.0)}, name="price", features=price, problem="regression", classes=(),
        rows=[{"rooms": 2, "garden": 1}], golden={"onnx": [[8.0]]},
    )  # fmt: skip
    city = [{"name": "city", "type": "string", "missing": True}, {"name": "amount", "type": "number", "missing": False}]
    maker.make(
        2, {"onnx": support.text_classifier()}, name="city", features=city, classes=("north", "south", "unknown"),
        rows=[{"city": "Oslo", "amount": 2.0}, {"city": None, "amount": 1.0}],
    )  # fmt: skip
    with support.running(root / "home", f"file://{root / 'releases'}", "--model", "bracelet") as running:
        for name, version in (("bracelet", 1), ("price", 4), ("city", 2)):
            answer = running.put(name, version)
            assert answer.status_code == 200, answer.text
        yield running
