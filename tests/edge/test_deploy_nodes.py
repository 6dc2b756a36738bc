"""deploy to nodes: a version rolls out node by node, and back where nodes do not prove it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from support.edge import Bundles, eventually
from support.kube_nodes import KubeNodes

from edgewright.artifacts import ArtifactStore
from edgewright.cli.render import command as render
from edgewright.errors import EdgewrightError
from edgewright.spec.steps.edge_place import EdgePlace
from edgewright.steps import deploy_edge
from edgewright.steps.contract import Identity, StepRequest, StepResult
from edgewright.steps.edge_workload import Release, build_workload
from edgewright.steps.execute import execute

SITE = {"substation": "TransformerXY"}
NAME = "edge-pump-onnx"


class Place:
    """A cluster with two labelled nodes and one other, and a folder where bundles are offered."""

    def __init__(self, root: Path, cluster: KubeNodes, bundles: Bundles) -> None:
        self.cluster, self.bundles, self.offered = cluster, bundles, root / "offered"
        self.store = ArtifactStore(root / "store")
        self._release = root / "release"
        self._release.mkdir()
        (self._release / "manifest.json").write_text("{}")
        for version in (1, 2):
            bundles.write(self.offered, version)

    def deploy(
        self, version: int, *, timeout: float = 200, task: str = "nodes", index: int = -1, **more: Any
    ) -> StepResult:
        meta = {"name": "pump", "version": str(version), "variants": ["onnx"], "default_variant": "onnx"}
        release = self.store.put(self._release, "bundle", meta).model_dump(mode="json")
        edge = {"selector": SITE, "runtime": "edgewright/edge:0.1.0", "source": str(self.offered), "poll": 0.2,
                "settle": 1, "key": self.bundles.public.read_text(), **more}  # fmt: skip
        config = {"release": release, "to": {"edge": edge}, "timeout": timeout}
        identity = Identity(dag_id="pumps", run_id="r1", task_id=task, map_index=index)
        request = StepRequest(step="deploy", config=config, identity=identity, store=self.store.root)
        with contextlib.suppress(EdgewrightError):  # it stands in the result as well
            execute(request)
        return StepResult.model_validate(self.store.read_json(f"{identity.key}/result.json"))

    def runs(self) -> dict[str, str]:
        """Return the version that each node proved."""
        pods = [pod.shown() for pod in list(self.cluster.pods.values()) if pod.ready]
        return {pod["spec"]["nodeName"]: pod["metadata"]["labels"]["edgewright.dev/version"] for pod in pods}


@pytest.fixture
def place(tmp_path: Path, bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(deploy_edge, "LOOK", 0.05)
    nodes = {"a": SITE, "b": SITE, "office": {"substation": "none"}}
    with KubeNodes(nodes) as cluster:
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", cluster.connection())
        yield Place(tmp_path, cluster, bundles)


def error_of(result: StepResult) -> str:
    assert result.state == "failed"
    assert result.error is not None
    return f"{result.error.type}: {result.error.message}"


@pytest.fixture
def until_nodes_complain(place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Time is over as soon as a node's log says something: however slow the machine is."""

    def wait(words: str) -> None:
        def is_over(deadline: float) -> bool:
            logs = [pod.folder / "log" for pod in list(place.cluster.pods.values())]
            return any(words in log.read_text() for log in logs if log.exists())

        monkeypatch.setattr(deploy_edge, "is_over", is_over)

    return wait


def test_a_version_reaches_the_labelled_nodes_one_by_one_and_goes_back_where_it_fails(
    place: Place, until_nodes_complain: Callable[[str], None]
) -> None:
    first = place.deploy(1, values={"limit": 80})
    assert first.state == "success", first.error
    assert place.runs() == {"a": "1", "b": "1"}
    assert first.tags["nodes"] == "a,b"
    assert first.notes == ["2 of 2 nodes answer with pump version 1"]

    place.cluster.most_changing = 0
    second = place.deploy(2, values={"limit": 80})
    assert second.state == "success", second.error
    assert place.runs() == {"a": "2", "b": "2"}
    assert second.tags["previous_version"] == "1"
    assert place.cluster.most_changing == 1, "the others answered meanwhile"

    again = place.deploy(2, values={"limit": 80})
    assert again.notes == ["2 of 2 nodes answer with pump version 2, as before"]

    changed = place.deploy(2, values={"limit": 90, "feeder": "F3"})
    assert changed.notes[1] == "only values changed (feeder, limit); version 2 (onnx) is reused as it is"

    # a bundle that somebody changed on its way: the nodes refuse it, and say so
    archive = place.bundles.write(place.offered, 3)
    archive.write_bytes(archive.read_bytes().replace(b'"problem"', b'"prob_em"', 1))
    until_nodes_complain("no update")
    third = error_of(place.deploy(3))
    assert third.startswith("DeployRejected: DaemonSet edge/edge-pump-onnx: pump version 3 (onnx) was refused: 2 of 2")
    assert re.search(
        "nodes did not answer with it within 200 s: [ab]: no update: the signature does not fit: manifest.json; ", third
    ), third
    assert "the nodes go back to version 2" in third
    eventually(lambda: place.runs() == {"a": "2", "b": "2"}, "going back")
    assert place.deploy(2, values={"limit": 90, "feeder": "F3"}).notes[0].endswith("as before")


def test_what_no_waiting_mends_ends_at_once_and_leaves_nothing(place: Place) -> None:
    failed = error_of(place.deploy(1, runtime="missing:1"))
    assert "nodes cannot run it: a: ErrImageNeverPull: not here; b: ErrImageNeverPull: not here" in failed
    assert "DaemonSet edge/edge-pump-onnx is removed; there was none before" in failed
    assert not place.cluster.workloads


def test_nodes_that_are_down_change_when_they_are_back(place: Place) -> None:
    place.cluster.down.add("b")
    found = place.deploy(1, name="pumps", replicas=None)
    assert found.state == "success", found.error
    assert found.tags["nodes"] == "a"
    assert found.notes[1] == "not up, and to change when they are: b"
    place.cluster.down.clear()
    eventually(lambda: place.runs() == {"a": "1", "b": "1"}, "b")


def test_a_version_that_is_not_offered_is_named_and_a_crash_forgets_nothing(
    place: Place, until_nodes_complain: Callable[[str], None]
) -> None:
    assert place.deploy(1).state == "success"
    rollout = deploy_edge.Rollout.prove
    try:  # the worker dies in the middle of version 2
        deploy_edge.Rollout.prove = lambda self: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[assignment,method-assign]
        with pytest.raises(KeyboardInterrupt):
            place.deploy(2)
    finally:
        deploy_edge.Rollout.prove = rollout  # type: ignore[method-assign]
    until_nodes_complain("is not offered")
    failed = error_of(place.deploy(7))
    assert "version 7 of pump for onnx is not offered" in failed
    assert "the nodes go back to version 1" in failed, "version 2 was never proven"


def test_labels_that_no_node_has(place: Place) -> None:
    failed = error_of(place.deploy(1, selector={"substation": "TransformerX"}))
    assert "NotFound: deploy.with.to.edge.selector: no node has the labels substation=TransformerX" in failed
    assert not place.cluster.workloads


def test_what_another_task_made_stays_as_it_is(place: Place) -> None:
    place.cluster.forbidden.add("/api/v1/nodes")  # without that right it goes by what Kubernetes counts
    assert place.deploy(1, replicas=2).state == "success"
    assert "the Deployment edge-pump-onnx is made by pumps/nodes" in error_of(place.deploy(2, replicas=2, task="other"))
    assert "there is a Deployment edge-pump-onnx for the same nodes" in error_of(place.deploy(2))
    other = place.deploy(1, replicas=2, index=1, selector={"substation": "none"})
    assert "edge-pump-onnx is of another item of for_each, for nodes with" in error_of(other)
    assert sorted(place.runs()) == ["a", "b"]


@pytest.mark.parametrize("more", [{}, {"replicas": 3}, {"token": "callers", "reports": "kafka://k:9092/r"},
                                  {"home": "/var/lib/nodes"}])  # fmt: skip
def test_the_manifest_is_one_that_kubernetes_takes(more: dict[str, Any]) -> None:
    from kubernetes.client import models

    from edgewright.places.pod_template import _walk

    place = EdgePlace.model_validate({
        "selector": SITE, "runtime": "e:1", "source": "oci://r.example.org/edge", "key": "PEM", "login": "registry",
        "max_unavailable": "10%", "resources": {"cpu": "500m", "memory": "256Mi"}, "pull_secrets": ["registry"],
        "secrets": {"A": {"secret": "s"}}, "tolerations": [{"key": "x", "operator": "Exists"}], **more,
    })  # fmt: skip
    document = build_workload(place, Release("Anomaly.Of_a_model" * 6, "12", "onnx-int8"), "d/t")
    assert list(_walk(document, f"V1{document['kind']}", "", models)) == []
    assert len(document["metadata"]["name"]) <= 63
    pod = document["spec"]["template"]["spec"]
    assert {"key": "node-role.kubernetes.io/edge", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    # only programs of the node itself can ask, unless callers have a token
    assert ("--token-file" in pod["containers"][0]["command"]) == ("token" in more) == (not pod.get("hostNetwork"))


def test_render_shows_one_manifest_for_each_site() -> None:
    file = Path(__file__).parents[1] / "corpus" / "good" / "deploy_nodes.yaml"
    shown = CliRunner().invoke(render, [str(file), "--format", "kubernetes"], catch_exceptions=False)
    sites = list(yaml.safe_load_all(shown.output))
    assert [(one["kind"], one["metadata"]["name"]) for one in sites] == [
        ("DaemonSet", "pumps-xy"), ("DaemonSet", "pumps-north"), ("Deployment", "edge-pumps-onnx-int8"),
    ]  # fmt: skip
    pods = [one["spec"]["template"]["spec"] for one in sites]
    assert [pod["nodeSelector"] for pod in pods[:2]] == [{"substation": "TransformerXY"}, {"substation": "North"}]
    assert pods[0]["containers"][0]["image"] == "edgewright/edge:0.1.0"
    other = CliRunner().invoke(render, [str(file.with_name("bracelet.yaml")), "--format", "kubernetes"])
    assert "no task deploys to nodes" in str(other.exception)
