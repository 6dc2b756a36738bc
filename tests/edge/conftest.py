"""Bundles and nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.edge import Bundles, Process


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    pytest.importorskip("model_signing")
    return Bundles(tmp_path_factory.mktemp("edge-bundles"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(source: Path | str, *options: str, home: str = "home") -> Process:
        started.append(Process(tmp_path / home, str(source), *options))
        return started[-1]

    yield begin
    for process in started:
        process.stop()
