"""The chart by the real Helm: rendered in many combinations, linted, bad values refused by its schema."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chart_values import BRIDGE, CARDIO, COMBINATIONS, LEAST, NEURO, REFUSED, SINK, over
from support.tools import call, demand

from edgewright.installation import Installation

ROOT = Path(__file__).resolve().parents[2]
CHART, PLATFORM = ROOT / "helm" / "edgewright", ROOT / "helm" / "platform"
Json = dict[str, Any]


def template(folder: Path, values: Json, chart: Path = CHART) -> tuple[int, str, str]:
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    done = call("helm", "template", "ml", chart, "--namespace", "ml", "--values", file)
    return done.returncode, done.stdout, done.stderr


def render(folder: Path, values: Json) -> dict[tuple[str, str, str], Json]:
    """Return the objects by kind, namespace and name."""
    code, text, fault = template(folder, over(LEAST, values))
    assert code == 0, fault
    found = [document for document in yaml.safe_load_all(text) if document]
    keys = [(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in found]
    assert len(set(keys)) == len(keys), "two objects of one name"
    return dict(zip(keys, found, strict=True))


def pods(objects: dict[Any, Json]) -> list[Json]:
    """Return the pods that a release makes, of Deployments and by themselves."""
    return [one["spec"]["template"] if one["kind"] == "Deployment" else one
            for one in objects.values() if one["kind"] in ("Deployment", "Pod")]  # fmt: skip


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_combination_renders_and_its_pods_are_safe(name: str, tmp_path: Path):
    objects = render(tmp_path, COMBINATIONS[name])
    for (kind, _, object_name), document in objects.items():
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", object_name), (kind, object_name)
        assert document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "edgewright"
    assert not [kind for kind, _, _ in objects if kind == "Secret"], "the chart makes no secrets"
    for pod in pods(objects):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert not container["image"].endswith((":", ":latest"))


@pytest.mark.parametrize("name", ["least", "everything"])
def test_lint_finds_nothing(name: str, tmp_path: Path):
    file = tmp_path / "values.json"
    file.write_text(json.dumps(over(LEAST, COMBINATIONS[name])))
    done = call("helm", "lint", CHART, "--strict", "--values", file)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_bad_values_are_refused_with_the_reason(values: Json, words: str, tmp_path: Path):
    code, _, fault = template(tmp_path, over(LEAST, values))
    assert code != 0
    assert words in fault


def test_a_sandbox_is_a_namespace_with_walls(tmp_path: Path):
    objects = render(tmp_path, COMBINATIONS["everything"])
    room = "ml-edgewright-cardio"
    mine = {(kind, name): one for (kind, namespace, name), one in objects.items() if namespace == room}
    hard = mine["ResourceQuota", "sandbox"]["spec"]["hard"]
    assert hard["requests.nvidia.com/gpu"] == "2"
    assert hard["requests.xilinx.com/fpga-vck190"] == "1"
    assert mine["NetworkPolicy", "default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    account = mine["ServiceAccount", "edgewright-step"]
    assert account["imagePullSecrets"] == [{"name": "harbor"}, {"name": "cardio-registry"}]
    launcher = mine["RoleBinding", "step-launcher"]
    assert {(one["name"], one["namespace"]) for one in launcher["subjects"]} == {
        ("airflow-worker", "airflow"), ("airflow-triggerer", "ml")}  # fmt: skip
    rules = mine["Role", "step-launcher"]["rules"]
    assert not [rule for rule in rules if "secrets" in rule["resources"]], "Airflow cannot read a team's secrets"
    other = objects["ResourceQuota", "ml-edgewright-neuro", "sandbox"]["spec"]["hard"]
    assert other["requests.nvidia.com/gpu"] == "0", "who was given no GPUs gets none"
    allowed = objects["NetworkPolicy", "ml", "ml-edgewright-mlflow"]["spec"]["ingress"][0]["from"]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": room}}} in allowed


def test_the_installation_it_writes_is_one_that_we_read(tmp_path: Path):
    objects = render(tmp_path, COMBINATIONS["everything"])
    text = objects["ConfigMap", "ml", "ml-edgewright-installation"]["data"]["installation.yaml"]
    (tmp_path / "installation.yaml").write_text(text)
    found = Installation.load({"EDGEWRIGHT_HOME": str(tmp_path)})
    assert found.store == "s3://edgewright/store"
    assert found.environment == "prod"
    assert found.services["predictions"].url == "http://ml-edgewright-serving.ml.svc:80"
    assert found.profiles["gpu"]["on"] == "kubernetes"
    assert found.feature_log is not None


def test_a_bare_on_of_yaml_is_understood(tmp_path: Path):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(LEAST) + "profiles:\n  gpu: {on: kubernetes, image: i}\n")
    done = call("helm", "template", "ml", CHART, "--values", file)
    text = next(one["data"]["installation.yaml"] for one in yaml.safe_load_all(done.stdout)
                if one and one["metadata"]["name"].endswith("-installation"))  # fmt: skip
    (tmp_path / "installation.yaml").write_text(text)
    assert Installation.load({"EDGEWRIGHT_HOME": str(tmp_path)}).profiles == {"gpu": {"on": "kubernetes", "image": "i"}}


def test_what_a_pod_runs_are_commands_of_ours(tmp_path: Path):
    """The arguments of the service, of sinks and of bridges are taken by the real programs."""
    from click.testing import CliRunner

    from edgewright.cli.main import cli
    from edgewright.serving.__main__ import _parser

    objects = render(tmp_path, COMBINATIONS["everything"])
    serving = objects["Deployment", "ml", "ml-edgewright-serving"]["spec"]["template"]["spec"]["containers"][0]
    options = _parser().parse_args(serving["args"])
    assert options.model == ["bracelet@champion", "wine"]
    assert options.feature_log_durable
    for name in ("sink-requests", "bridge-bracelets"):
        container = objects["Deployment", "ml", f"ml-edgewright-{name}"]["spec"]["template"]["spec"]["containers"][0]
        done = CliRunner().invoke(cli, [*container["args"], "--help"])
        assert done.exit_code == 0, done.output
        help_text = re.findall(r"--[a-z-]+", done.output)
        assert {one.split("=")[0] for one in container["args"] if one.startswith("--")} <= set(help_text)


def test_a_bridge_is_never_two_pods(tmp_path: Path):
    objects = render(tmp_path, {"bridges": [BRIDGE], "sinks": [{**SINK, "replicas": 3}]})
    bridge = objects["Deployment", "ml", "ml-edgewright-bridge-bracelets"]["spec"]
    assert (bridge["replicas"], bridge["strategy"]) == (1, {"type": "Recreate"})
    assert objects["Deployment", "ml", "ml-edgewright-sink-requests"]["spec"]["replicas"] == 3


def test_every_value_is_described_and_every_default_is_in_the_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def walk(node: Json, path: str) -> None:
        node = schema["$defs"][node["$ref"].split("/")[-1]] if "$ref" in node else node
        assert node.get("description"), f"{path} is not described"
        if node.get("type") == "object" and "properties" in node:
            for key, child in node["properties"].items():
                if key not in ("true", "on"):
                    walk(child, f"{path}.{key}")
        elif isinstance(node.get("items"), dict) and "properties" in node["items"]:
            walk(node["items"], f"{path}[]")

    walk(schema, "values")
    assert set(values) | {"global"} == set(schema["properties"])


def test_dashboards_ask_for_metrics_that_the_service_has():
    from edgewright.serving import metrics

    asked = set()
    for path in (CHART / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                asked |= set(re.findall(r"edgewright_[a-z_]+", target["expr"]))
    source = Path(metrics.__file__).read_text()
    have = set(re.findall(r"edgewright_[a-z_]+", source))
    assert asked
    assert {name.removesuffix("_bucket") for name in asked} <= have


@pytest.mark.parametrize("enabled", [True, False])
def test_the_platform_takes_airflows_chart_by_a_condition(enabled: bool, tmp_path: Path):
    """Airflow's own chart cannot be downloaded here: one of its name and version shows what it would be given."""
    demand("helm")
    chart = tmp_path / "platform"
    shutil.copytree(PLATFORM, chart)
    shutil.copytree(CHART, chart / "charts" / "edgewright")
    pinned = yaml.safe_load((chart / "Chart.yaml").read_text())["dependencies"][1]
    airflow = chart / "charts" / "airflow"
    (airflow / "templates").mkdir(parents=True)
    (airflow / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "airflow",
                                                        "version": pinned["version"]}))  # fmt: skip
    shown = "kind: Given\napiVersion: v1\nmetadata: {name: given}\nvalues: {{ toJson .Values }}\n"
    (airflow / "templates" / "given.yaml").write_text(shown)
    code, text, fault = template(tmp_path, {"edgewright": over(LEAST, {"sandboxes": [CARDIO, NEURO]}),
                                            "airflow": {"enabled": enabled}}, chart)  # fmt: skip
    assert code == 0, fault
    given = [one for one in yaml.safe_load_all(text) if one and one["kind"] == "Given"]
    assert len(given) == enabled
    if given:
        assert given[0]["values"]["scheduler"] == {"replicas": 2}
        assert given[0]["values"]["postgresql"] == {"enabled": False}
