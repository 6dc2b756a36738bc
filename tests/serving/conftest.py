from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    """Load a module of tests/support; the tests are no package, so it has no import path."""
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "support" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def support() -> ModuleType:
    return _load("prediction_service")


@pytest.fixture
def releases(tmp_path: Path, support: ModuleType) -> object:
    return support.ReleaseMaker(tmp_path / "releases")


@pytest.fixture
def service(tmp_path: Path, support: ModuleType, releases: object) -> Iterator[object]:
    """A running service whose releases come from a folder."""
    with support.running(tmp_path / "home", f"file://{tmp_path / 'releases'}") as running:
        yield running


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory, support: ModuleType) -> Iterator[object]:
    """A service with three models that the tests only ask: bracelet (default), price, city."""
    root = tmp_path_factory.mktemp("answering")
    maker = support.ReleaseMaker(root / "releases")
    maker.make(1)
    price = [
        {"name": "rooms", "type": "number", "missing": False},
        {"name": "garden", "type": "boolean", "missing": False},
    ]
    maker.make(
        4, {"onnx": support.regressor(1.0)}, name="price", features=price, problem="regression", classes=[],
        rows=[{"rooms": 2, "garden": 1}], golden={"onnx": [[8.0]]},
    )  # fmt: skip
    city = [{"name": "city", "type": "string", "missing": True}, {"name": "amount", "type": "number", "missing": False}]
    maker.make(
        2, {"onnx": support.text_classifier()}, name="city", features=city, classes=["north", "south", "unknown"],
        rows=[{"city": "Oslo", "amount": 2.0}, {"city": None, "amount": 1.0}],
    )  # fmt: skip
    with support.running(root / "home", f"file://{root / 'releases'}", "--model", "bracelet") as running:
        for name, version in (("bracelet", 1), ("price", 4), ("city", 2)):
            answer = running.put(name, version)
            assert answer.status_code == 200, answer.text
        yield running
