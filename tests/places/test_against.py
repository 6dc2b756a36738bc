"""``check --against``: what a cluster lacks for the profiles, and what a ``pod:`` may say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from support.kube_api import KubeApi

from edgewright.cli.main import cli

Json = dict[str, Any]
ML = "/api/v1/namespaces/ml"
GONE = (404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found"})
CLOSED = (403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "may not"})


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi() as api:
        api.kubeconfig(tmp_path / "kubeconfig")
        yield api


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "flow").mkdir()
    (tmp_path / "flow" / "data.csv").write_text("a,b\n1,0\n")

    def call(profile: Json, *arguments: str) -> Result:
        document = {
            "dag_id": "d", "profiles": {"there": {"on": "kubernetes", "image": "step:1", **profile}},
            "tasks": [{"id": "t", "uses": "ingest", "profile": "there", "with": {"source": "data.csv"}}],
        }  # fmt: skip
        (tmp_path / "flow" / "pipeline.yaml").write_text(
            yaml.safe_dump(document, sort_keys=False).replace("true:", "on:")
        )
        return CliRunner().invoke(cli, ["check", str(tmp_path / "flow"), *arguments])

    return call


@pytest.fixture
def ask(kube: KubeApi, check: Callable[..., Result], tmp_path: Path) -> Callable[[Json], Result]:
    return lambda profile: check(profile, "--against", str(tmp_path / "kubeconfig"))


def test_a_profile_that_can_be_honoured_is_no_fault_and_starts_nothing(kube: KubeApi, ask: Callable[[Json], Result]):
    done = ask({"resources": {"cpu": 1, "xilinx.com/fpga": 1}, "service_account": "steps"})
    assert done.exit_code == 0, done.output
    assert not kube.created


@pytest.mark.parametrize(
    ("profile", "path", "words"),
    [
        ({"namespace": "lab"}, "/api/v1/namespaces/lab", "there is no namespace lab; make it, or name another"),
        ({"pull_secrets": ["harbor"]}, f"{ML}/secrets/harbor",
         "there is no pull secret harbor in ml; kubectl -n ml create secret docker-registry harbor"),
        ({"secrets": {"KEY": {"secret": "store"}}}, f"{ML}/secrets/store",
         "there is no Secret store in ml (secrets.KEY); make it, with the key KEY"),
        ({"service_account": "steps"}, f"{ML}/serviceaccounts/steps", "there is no service account steps"),
        ({"volume_claim": "store"}, f"{ML}/persistentvolumeclaims/store", "there is no claim store in ml"),
        ({"priority": "high"}, "/apis/scheduling.k8s.io/v1/priorityclasses/high", "there is no PriorityClass high"),
        ({"runtime_class": "nvidia"}, "/apis/node.k8s.io/v1/runtimeclasses/nvidia", "there is no RuntimeClass nvidia"),
        ({"mounts": [{"path": "/d", "config_map": "settings"}]}, f"{ML}/configmaps/settings",
         "there is no ConfigMap settings in ml"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_not_there_is_said_at_the_profile(
    kube: KubeApi, ask: Callable[[Json], Result], profile: Json, path: str, words: str
):
    kube.objects[path] = GONE
    done = ask(profile)
    assert done.exit_code == 1
    assert words in done.output
    assert "pipeline.yaml:3:3: profiles.there: " in done.output


def test_a_secret_is_asked_for_its_key_and_never_shown(kube: KubeApi, ask: Callable[[Json], Result]):
    kube.objects[f"{ML}/secrets/store"] = (
        200, {"kind": "Secret", "metadata": {"name": "store"}, "data": {"id": "aGlkZGVu"}})  # fmt: skip
    done = ask({"secrets": {"KEY": {"secret": "store", "key": "key"}}})
    assert "the Secret store has no key key (secrets.KEY); it has id" in done.output
    assert "aGlkZGVu" not in done.output
    assert "hidden" not in done.output


def _nodes(*nodes: Json) -> tuple[int, Json]:
    items = [{"metadata": {"name": "n", "labels": node.get("labels", {})}, "spec": {"taints": node.get("taints", [])},
              "status": {"allocatable": node["offers"]}} for node in nodes]  # fmt: skip
    return 200, {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items}


TAINT = {"key": "gpu", "value": "only", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("nodes", "profile", "words"),
    [
        ([{"offers": {"cpu": "2"}}], {"resources": {"nvidia.com/gpu": 1}}, "no node offers nvidia.com/gpu: 1; nodes"),
        ([{"offers": {"cpu": "2"}}], {"resources": {"cpu": "2500m"}}, "no node offers cpu: 2500m; nodes have at most"),
        ([{"offers": {"cpu": "8"}}, {"offers": {"a.b/c": "1"}}], {"resources": {"cpu": 4, "a.b/c": 1}},
         "no single node offers all resources together"),
        ([{"offers": {}, "labels": {"accelerator": "t4"}}], {"node_selector": {"accelerator": "l4"}},
         "no node has the labels accelerator=l4 (nodes have accelerator=t4)"),
        ([{"offers": {"cpu": "8"}, "taints": [TAINT]}], {"resources": {"cpu": 1}}, "is tainted (gpu=only:NoSchedule)"),
    ],
)  # fmt: skip
def test_nodes(kube: KubeApi, ask: Callable[[Json], Result], nodes: list[Json], profile: Json, words: str):
    kube.objects["/api/v1/nodes"] = _nodes(*nodes)
    done = ask(profile)
    assert done.exit_code == 1
    assert words in done.output


def test_a_toleration_opens_a_node(kube: KubeApi, ask: Callable[[Json], Result]):
    kube.objects["/api/v1/nodes"] = _nodes({"offers": {"cpu": "8"}, "taints": [TAINT]})
    tolerations = [{"key": "gpu", "value": "only", "effect": "NoSchedule"}]
    assert ask({"resources": {"cpu": 1}, "tolerations": tolerations}).exit_code == 0


@pytest.mark.parametrize(("wanted", "words"), [(2, "; wait, ask for less"), (5, "; ask for less")])
def test_a_quota_says_what_is_left(kube: KubeApi, ask: Callable[[Json], Result], wanted: int, words: str):
    kube.objects["/api/v1/nodes"] = _nodes({"offers": {"nvidia.com/gpu": "8"}})
    status = {"hard": {"requests.nvidia.com/gpu": "4"}, "used": {"requests.nvidia.com/gpu": "3"}}
    kube.objects[f"{ML}/resourcequotas"] = (200, {
        "kind": "ResourceQuotaList", "apiVersion": "v1", "metadata": {},
        "items": [{"metadata": {"name": "sandbox"}, "spec": {}, "status": status}]})  # fmt: skip
    done = ask({"resources": {"nvidia.com/gpu": wanted}})
    assert "the quota sandbox of ml allows requests.nvidia.com/gpu: 4, 3 are taken" in done.output
    assert f"and the profile asks for {wanted}{words}" in done.output


def test_what_may_not_be_read_is_said_and_not_guessed(kube: KubeApi, ask: Callable[[Json], Result]):
    kube.objects["/api/v1/nodes"] = CLOSED
    kube.objects[f"{ML}/secrets/harbor"] = CLOSED
    done = ask({"pull_secrets": ["harbor"], "resources": {"nvidia.com/gpu": 1}})
    assert done.exit_code == 0
    assert "not looked at, for want of permission: the pull secret harbor" in done.output
    assert "not looked at, for want of permission: nodes" in done.output


def test_the_api_has_the_last_word(kube: KubeApi, ask: Callable[[Json], Result]):
    kube.quota = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'
    done = ask({})
    assert 'Kubernetes refuses the pod: pods "x" is forbidden: violates PodSecurity' in done.output
    assert not kube.created


def test_a_cluster_that_does_not_answer_is_no_fault_of_the_pipeline(kube: KubeApi, check: Any, tmp_path: Path):
    file = kube.kubeconfig(tmp_path / "away")
    file.write_text(file.read_text().replace(str(kube._server.server_port), "9"))
    done = check({}, "--against", str(file))
    assert done.exit_code == 69
    assert check({}, "--against", str(tmp_path / "no-file")).exit_code == 1


POD = {"spec": {"tolerationz": [], "hostNetwork": "yes", "containers": [{"name": "step", "resources": {"limit": {}}}]}}


def test_every_slip_in_a_pod_is_found_without_a_cluster(check: Callable[..., Result], tmp_path: Path):
    done = check({"pod": POD})
    assert done.exit_code == 1
    assert "pod: spec.tolerationz: Kubernetes knows no such key" in done.output
    assert 'did you mean "tolerations"' in done.output
    assert "pod: spec.hostNetwork: 'yes' is no bool" in done.output
    assert 'pod: spec.containers[0].resources.limit: Kubernetes knows no such key; did you mean "limits"' in done.output
    (tmp_path / "flow" / "pod.yaml").write_text(yaml.safe_dump({"kind": "Pod", **POD}))
    assert "pod.yaml: spec.tolerationz: Kubernetes knows no such key" in check({"pod": "pod.yaml"}).output
    assert "there is no file other.yaml" in check({"pod": "other.yaml"}).output
    assert "there is no file ../pod.yaml" in check({"pod": "../pod.yaml"}).output


def test_a_template_file_is_what_the_pod_is_made_of(tmp_path: Path):
    from edgewright.installation import Installation
    from edgewright.places.choose import choose
    from edgewright.places.pods import build_pod
    from edgewright.steps.contract import Identity, Source, StepRequest

    (tmp_path / "pod.yaml").write_text(
        "spec: {schedulerName: volcano, dnsConfig: {options: [{name: ndots, value: '1'}]}}\n"
    )
    request = StepRequest(step="ingest", identity=Identity(dag_id="d", run_id="r", task_id="t"), store="s3://b/s",
                          source=Source(folder=str(tmp_path)))  # fmt: skip
    own = {"p": {"on": "kubernetes", "image": "i", "pod": "pod.yaml"}}
    pod = build_pod(choose("p", None, own, Installation(home=tmp_path), request), request)
    assert pod["spec"]["schedulerName"] == "volcano"
    assert json.dumps(pod)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="no KUBECONFIG: make cluster, make test-kubernetes")
def test_a_real_cluster_is_asked(check: Callable[..., Result]):
    profile = {"resources": {"example.com/rare-device": 3}, "pull_secrets": ["absent"], "priority": "absent"}
    done = check(profile, "--against", "kubernetes")
    assert done.exit_code == 1
    for words in (
        "no pull secret absent in default",
        "no PriorityClass absent",
        "no node offers example.com/rare-device: 3",
    ):
        assert words in done.output
    assert check({"resources": {"cpu": "100m"}}, "--against", "kubernetes").exit_code == 0
