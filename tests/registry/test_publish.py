"""Publishing: once, whoever tries how often, and whenever who dies."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.mlflow_server import MlflowServer
from support.releases import release_folder

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, Unavailable
from edgewright.registry import Registry
from edgewright.registry.publish import Publishing, is_older, publish

# Publishes; dies at, or right after, a call of MLflow's client when the last arguments say so.
PUBLISHER = """
import os, signal, sys
from pathlib import Path
from edgewright.artifacts import ArtifactStore
from edgewright.registry import Registry
from edgewright.registry.publish import Publishing, publish
uri, store, folder, name, digest, by, call, when = sys.argv[1:]
if call:
    from mlflow import MlflowClient
    original = getattr(MlflowClient, call)
    def dying(self, *args, **kwargs):
        if when == "after":
            original(self, *args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(MlflowClient, call, dying)
found = publish(Registry(uri), ArtifactStore(store), Publishing(name, digest, Path(folder), by=by, run_id=""))
print(found.created, found.version.version)
"""


def start(uri: str, store: str, what: Publishing, call: str = "", when: str = "") -> subprocess.Popen[str]:
    arguments = [uri, store, str(what.folder), what.name, what.digest, what.by, call, when]
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def what(tmp_path: Path, name: str) -> Publishing:
    folder, manifest = release_folder(tmp_path / "first", name)
    return Publishing(name, manifest["digest"], folder, by="demo/run-1/release")


def other(tmp_path: Path, name: str, weight: float, **facts: object) -> Publishing:
    folder, manifest = release_folder(tmp_path / f"{weight}", name, weight)
    return Publishing(name, manifest["digest"], folder, **facts)  # type: ignore[arg-type]


def test_the_same_models_are_one_version(registry: Registry, store: ArtifactStore, what: Publishing) -> None:
    first, second = publish(registry, store, what), publish(registry, store, what)
    assert (first.created, first.moved, first.version.version) == (True, True, "1")
    assert (second.created, second.moved, second.version) == (False, False, first.version)
    assert "is registered" not in second.notes[0]
    assert "reused" in second.notes[0]
    assert len(registry.versions(what.name)) == 1


def test_a_version_carries_its_tags_from_the_first_moment(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    tags = {"targets": "onnx", "metric.accuracy": "0.9", "empty": ""}
    what = other(tmp_path, name, 1.0, tags=tags, own_tags={"team": "edge"}, description="words", data_time="2026-01-01")
    version = publish(registry, store, what).version
    assert version.tags == {
        "targets": "onnx", "metric.accuracy": "0.9", "team": "edge", "data_time": "2026-01-01", "digest": what.digest,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("call", "when"),
    [
        ("create_registered_model", "after"),
        ("create_logged_model", "after"),
        ("log_model_artifacts", "after"),
        ("finalize_logged_model", "after"),
        ("create_model_version", "before"),
        ("create_model_version", "after"),
        ("set_registered_model_alias", "before"),
        ("set_registered_model_alias", "after"),
        ("set_registered_model_tag", "before"),
    ],
)
def test_a_publisher_that_is_killed_leaves_nothing_half_and_the_retry_makes_one_version(
    call: str, when: str, mlflow_server: MlflowServer, store: ArtifactStore, what: Publishing, tmp_path: Path
) -> None:
    uri = mlflow_server.uri
    process = start(uri, store.root, what, call, when)
    _, error = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, error
    registry = Registry(uri)
    for version in registry.versions(what.name):
        registry.download(version, tmp_path / "whole")  # a version that exists is complete
    done = publish(registry, store, what)
    assert [v.version for v in registry.versions(what.name)] == ["1"]
    assert done.version.aliases == ("champion",)
    registry.download(done.version, tmp_path / "retried")
    with registry.connection.calls("look") as client:
        experiment = client.get_experiment_by_name(what.experiment)
        models = client.search_logged_models(
            [experiment.experiment_id], filter_string=f"tags.`edgewright.release` = '{what.name}'"
        )
    assert len(models) == 1, "what the killed try left was used"
    if call in ("log_model_artifacts", "finalize_logged_model"):
        assert any("an earlier try left" in note for note in done.notes)


def test_two_publishers_at_once_make_one_version(uri: str, store: ArtifactStore, what: Publishing) -> None:
    both = [start(uri, store.root, what) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert sorted(out.strip() for out, _ in said) == ["False 1", "True 1"], said
    assert len(Registry(uri).versions(what.name)) == 1


def test_two_publishers_that_do_not_see_each_others_lease_still_make_one_version(
    uri: str, what: Publishing, tmp_path: Path
) -> None:
    both = [start(uri, str(tmp_path / f"store-{number}"), what) for number in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert all(process.returncode == 0 for process in both), said
    versions = Registry(uri).versions(what.name)
    assert len(versions) == 1, said
    assert versions[0].aliases == ("champion",)
    Registry(uri).download(versions[0], tmp_path / "d")


def test_a_server_that_is_down_leaves_nothing_and_the_retry_goes_on(tmp_path: Path, name: str) -> None:
    server, store = MlflowServer(tmp_path / "server"), ArtifactStore(tmp_path / "store")
    what = other(tmp_path, name, 1.0, by="demo/run-1/release")
    registry = Registry(server.uri)
    with pytest.raises(Unavailable, match="MLflow does not answer"):
        publish(registry, store, what)
    server.start()
    try:
        assert registry.models() == []
        with registry.connection.calls("look") as client:
            upload = client.log_model_artifacts

            def dies(*args: object, **kwargs: object) -> None:
                upload(*args, **kwargs)
                server.stop()

            client.log_model_artifacts = dies  # type: ignore[method-assign]
            with pytest.raises(Unavailable, match="MLflow does not answer"):
                publish(registry, store, what)
            client.log_model_artifacts = upload  # type: ignore[method-assign]
        server.start()
        assert registry.versions(name) == [], "nothing is half-registered"
        assert publish(registry, store, what).created
        assert [v.version for v in registry.versions(name)] == ["1"]
    finally:
        server.stop()


# -- the alias ---------------------------------------------------------------------------------------------------------


def test_an_older_run_does_not_move_the_alias(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    publish(registry, store, other(tmp_path, name, 1.0, data_time="2026-03-01T00:00:00+00:00"))
    late = publish(registry, store, other(tmp_path, name, 2.0, data_time="2026-02-01T00:00:00+00:00"))
    assert (late.created, late.moved, late.version.aliases) == (True, False, ())
    assert "are older than those of version 1" in late.notes[-1]
    new = publish(registry, store, other(tmp_path, name, 3.0, data_time="2026-04-01T00:00:00+00:00"))
    assert new.moved
    assert registry.version(name, 1).aliases == ("previous",)


def test_a_version_found_again_with_newer_data_counts_as_newer(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    first = other(tmp_path, name, 1.0, data_time="2026-01-01T00:00:00+00:00")
    publish(registry, store, first)
    again = Publishing(name, first.digest, first.folder, data_time="2026-05-01T00:00:00Z", own_tags={"seen": "twice"})
    assert publish(registry, store, again).version.tags["data_time"] == "2026-05-01T00:00:00Z"
    backfill = publish(registry, store, other(tmp_path, name, 2.0, data_time="2026-03-01T00:00:00+00:00"))
    assert not backfill.moved
    assert registry.version(name, 1).tags["seen"] == "twice"


def test_what_was_rolled_back_is_not_promoted_again_by_publishing_it(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    publish(registry, store, other(tmp_path, name, 1.0))
    bad = other(tmp_path, name, 2.0)
    publish(registry, store, bad)
    registry.roll_back(name, by="ann")
    again = publish(registry, store, bad)
    assert not again.moved
    assert "was rolled back at" in again.notes[-1]
    assert "by ann" in again.notes[-1]
    assert registry.set_alias(name, "champion", 2).aliases == ("champion",)
    registry.roll_back(name)
    assert publish(registry, store, other(tmp_path, name, 3.0)).moved, "another model is promoted as ever"


def test_publishing_without_an_alias(registry: Registry, store: ArtifactStore, tmp_path: Path, name: str) -> None:
    found = publish(registry, store, other(tmp_path, name, 1.0, alias=None))
    assert (found.moved, found.version.aliases) == (False, ())


def test_an_alias_that_mlflow_reserves_is_refused(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match="MLflow refuses to set the alias v1"):
        publish(registry, store, other(tmp_path, name, 1.0, alias="v1"))


def test_a_training_run_that_is_gone_is_said(
    registry: Registry, store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    found = publish(registry, store, other(tmp_path, name, 1.0, run_id="0" * 32))
    assert found.version.run_id == ""
    assert any("has no run 0000" in note for note in found.notes)


def test_the_training_run_is_linked(registry: Registry, store: ArtifactStore, tmp_path: Path, name: str) -> None:
    with registry.connection.calls("train") as client:
        experiment = client.create_experiment(f"exp-{name}", (tmp_path / "exp").as_uri())
        run_id = client.create_run(experiment).info.run_id
    assert publish(registry, store, other(tmp_path, name, 1.0, run_id=run_id)).version.run_id == run_id


@pytest.mark.parametrize(
    ("first", "second", "older"),
    [
        ("2026-01-01", "2026-01-02", True),
        ("2026-01-01T01:00:00+02:00", "2026-01-01T00:00:00Z", True),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00", False),
        (None, "2026-01-01", True),
        ("2026-01-01", None, False),
        (None, None, False),
    ],
)
def test_times_are_compared_as_times(first: str | None, second: str | None, older: bool) -> None:
    assert is_older(first, second) is older
