"""Somebody else's image: staging, the command, collecting, each as the real program; and the pod around it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.releases import linear_graph

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, UserFault
from edgewright.installation import Installation
from edgewright.places import foreign
from edgewright.places.choose import choose
from edgewright.places.pods import build_pod
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import Identity, Source, StepRequest
from edgewright.steps.execute import execute

PROFILE: dict[str, Any] = {
    "on": "kubernetes", "image": "vendor/tool:1", "foreign": True, "runner": "edgewright/step-cpu:0.1.0",
    "resources": {"xilinx.com/fpga": 1}, "secrets": {"AWS_SECRET_ACCESS_KEY": {"secret": "store", "key": "secret"}},
}  # fmt: skip
FIT = 'cp model.onnx "$EDGEWRIGHT_OUTPUT/" && echo "{\\"depth\\": ${1#--depth=}}" > "$EDGEWRIGHT_OUTPUT/metrics.json"\n'


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepRequest:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    flow = tmp_path / "flow"
    flow.mkdir()
    (flow / "data.csv").write_text("a,b,c,y\n" + "".join(f"{i % 3},{i % 5},{-i % 7},{i % 2}\n" for i in range(60)))
    (flow / "model.onnx").write_bytes(linear_graph(1.0))
    (flow / "fit.sh").write_text(FIT)
    common: dict[str, Any] = {"store": f"file://{tmp_path}/store", "source": Source(folder=str(flow))}
    data = execute(StepRequest(step="ingest", config={"source": "data.csv", "label": "y"}, **common,
                               identity=Identity(dag_id="d", run_id="r", task_id="data")))  # fmt: skip
    config = {"data": data.outputs["dataset"].model_dump(mode="json"), "script": "fit.sh", "args": {"depth": 3},
              "inputs": {"rows": "train.csv"}, "seed": 7}  # fmt: skip
    return StepRequest(step="train", config=config, identity=Identity(dag_id="d", run_id="r", task_id="t"), **common)


def _module(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgewright.steps.foreign", *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _run(request: StepRequest, folder: Path, *, killed: bool = False) -> tuple[int, str]:
    """Do what the pod does: stage, the vendor's container beside the one that collects."""
    folder.mkdir()
    file = folder / "request.json"
    file.write_text(request.model_dump_json())
    staged = _module("stage", file, folder)
    assert staged.wait(120) == 0, staged.communicate()[0]
    collector = _module("collect", file, folder)
    here = [part.replace(foreign.SHARED, str(folder)) for part in _vendor(request)["command"]]
    env = {entry["name"]: entry["value"].replace(foreign.SHARED, str(folder)) for entry in _vendor(request)["env"]}
    vendor = subprocess.Popen(here, cwd=folder / "work", env={"PATH": "/usr/bin:/bin", **env}, start_new_session=True)
    if killed:
        while not (folder / "pid").exists() or not (folder / "pid").read_text().strip():
            assert vendor.poll() is None
            time.sleep(0.05)
        os.killpg(vendor.pid, signal.SIGKILL)  # as the end of a container ends all that runs in it
    vendor.wait(120)
    text = collector.communicate(timeout=240)[0]
    return collector.returncode, text


def _vendor(request: StepRequest) -> dict[str, Any]:
    containers = build_pod(Profile.model_validate(PROFILE), request)["spec"]["containers"]
    found: dict[str, Any] = containers[0]
    assert found["name"] == "step"
    return found


def _result(request: StepRequest) -> dict[str, Any]:
    found: dict[str, Any] = ArtifactStore(request.store).read_json(f"{request.identity.key}/result.json")
    return found


def test_what_the_command_leaves_is_a_model_like_any_other(request_: StepRequest, tmp_path: Path):
    code, text = _run(request_, tmp_path / "shared")
    assert code == 0, text
    result = _result(request_)
    assert result["state"] == "success"
    assert result["metrics"]["depth"] == 3
    assert result["metrics"]["rows"] == 60
    assert result["cache"]["key"] is None
    about = json.loads((tmp_path / "shared" / "about.json").read_text())
    assert about == {"label": "y", "problem": "classification", "features": ["a", "b", "c"], "seed": 7}


@pytest.mark.slow
def test_a_command_that_fails_is_told_with_its_code(request_: StepRequest, tmp_path: Path):
    (tmp_path / "flow" / "fit.sh").write_text("exit 3\n")
    code, text = _run(request_, tmp_path / "shared")
    assert code == 1
    assert "fit.sh ended with 3" in text
    assert _result(request_)["error"]["user_fault"] is True


def test_a_command_that_is_killed_is_not_waited_for(request_: StepRequest, tmp_path: Path):
    (tmp_path / "flow" / "fit.sh").write_text("while :; do :; done\n")
    code, text = _run(request_, tmp_path / "shared", killed=True)
    assert code == 1
    assert "fit.sh ended with 137" in text


def test_a_script_that_is_not_there_is_found_while_staging(request_: StepRequest, tmp_path: Path):
    request_.config["script"] = "absent.sh"
    (tmp_path / "shared").mkdir()
    with pytest.raises(UserFault, match=r"no such file: absent\.sh"):
        foreign.stage(request_, tmp_path / "shared")


def test_the_vendors_container_sees_no_secret_and_holds_the_device(request_: StepRequest):
    pod = build_pod(Profile.model_validate(PROFILE), request_)["spec"]
    vendor, collector = pod["containers"]
    (stage,) = pod["initContainers"]
    assert (vendor["image"], collector["image"], stage["image"]) == (
        "vendor/tool:1", "edgewright/step-cpu:0.1.0", "edgewright/step-cpu:0.1.0")  # fmt: skip
    assert vendor["resources"]["limits"] == {"xilinx.com/fpga": "1"}
    assert "limits" not in collector["resources"]
    names = [[entry["name"] for entry in one["env"]] for one in (vendor, collector, stage)]
    assert ["AWS_SECRET_ACCESS_KEY" in each for each in names] == [False, True, True]
    assert "/edgewright/request" not in [mount["mountPath"] for mount in vendor["volumeMounts"]]
    for one in (vendor, collector, stage):
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert vendor["command"][4:] == ["sh", "/edgewright/shared/work/fit.sh", "--depth=3",
                                     "--rows=/edgewright/shared/input/train.csv"]  # fmt: skip


def test_our_containers_may_be_given_more(request_: StepRequest):
    more = {"spec": {"containers": [{"name": "collect", "env": [{"name": "A", "value": "b"}]}]}}
    pod = build_pod(Profile.model_validate({**PROFILE, "pod": more}), request_)["spec"]
    assert [one["name"] for one in pod["containers"]] == ["step", "collect"]
    assert pod["containers"][1]["env"][0] == {"name": "A", "value": "b"}
    assert pod["containers"][1]["command"][3] == "collect"


def test_other_steps_are_refused(request_: StepRequest, tmp_path: Path):
    request = request_.model_copy(update={"step": "ingest"})
    with pytest.raises(ConfigError, match="a foreign image runs the script: of a train step"):
        choose("p", None, {"p": PROFILE}, Installation(home=tmp_path), request)


def test_an_unknown_ending_is_said(request_: StepRequest):
    request_.config["script"] = "fit.xyz"
    with pytest.raises(ConfigError, match=r"nobody knows what runs fit\.xyz"):
        foreign.command(request_)
    request_.config["interpreter"] = ["/opt/tool/run", "-q"]
    assert foreign.command(request_)[:3] == ["/opt/tool/run", "-q", "/edgewright/shared/work/fit.xyz"]


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("EDGEWRIGHT_TEST_VENDOR_IMAGE"),
    reason="no EDGEWRIGHT_TEST_VENDOR_IMAGE: an image with a shell in the engine of DOCKER_HOST",
)
def test_docker_mounts_the_folder(request_: StepRequest):
    from edgewright.places.containers import Container

    image = os.environ["EDGEWRIGHT_TEST_VENDOR_IMAGE"]
    profile = Profile.model_validate({"on": "docker", "image": image, "foreign": True, "pull": "never"})
    result = Container(profile).run(request_, ArtifactStore(request_.store))
    assert result.metrics["depth"] == 3
    assert result.outputs["model"].kind == "model"
