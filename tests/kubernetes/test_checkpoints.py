"""A training pod that is evicted goes on from its checkpoint on a real cluster, and no retry of the task is used up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.cluster import Place, evict, kubectl, marks, pods, until

pytestmark = marks
#: The first pod and the second train two epochs each and then wait to be taken away; the third one trains the rest.
FIT = """
import json, time
from sklearn.linear_model import LogisticRegression

def fit(data):
    state = data.checkpoint / "state.json"
    done = json.loads(state.read_text()) if state.exists() else []
    mine = done[-1] + 1 if done else 1
    while len(done) < 6 and (mine == 3 or len(done) < 2 * mine):
        done.append(mine)
        part = state.with_suffix(".tmp")
        part.write_text(json.dumps(done))
        part.replace(state)
    if mine < 3:
        time.sleep(600)
    open("HOME/epochs.json", "w").write(json.dumps(done))
    return LogisticRegression().fit(data.X, data.y)
"""
SCRIPT = """
folder=$EDGEWRIGHT_CHECKPOINT
save() { echo trained > $folder/weights; exit 0; }
trap save TERM
if [ ! -f $folder/weights ]; then
  echo ready to be evicted
  while :; do sleep 1; done
fi
cp model.onnx "$EDGEWRIGHT_OUTPUT/model.onnx"
"""


def pipeline(profile: dict[str, Any], **train: Any) -> dict[str, Any]:
    return {
        "dag_id": "spot", "profiles": {"spot": profile},
        "tasks": [
            {"id": "data", "uses": "ingest", "with": {"source": "data.csv", "label": "y"}},
            {"id": "model", "uses": "train", "profile": "spot", "with": {"data": {"$x": "data"}, **train}},
        ],
    }  # fmt: skip


ROWS = "a,y\n" + "".join(f"{number % 7},{number % 2}\n" for number in range(60))


def test_an_evicted_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    place = Place(tmp_path)
    document = pipeline(place.profile(spot=True), entry="model.py:fit", checkpoint=1)
    file = place.write(document, data_csv=ROWS, model_py=FIT.replace("HOME", str(place.home)))
    run = place.start("run", str(file))
    for number in (1, 2):
        saved = lambda: list(place.home.glob("store/runs/spot/*/model/checkpoint.json"))  # noqa: E731
        wanted = f'"number": {number},'
        until(lambda: run.poll() is not None or any(wanted in one.read_text() for one in saved()))  # noqa: B023
        assert run.poll() is None, run.communicate()[0]
        (pod,) = [one["metadata"]["name"] for one in pods() if not one["metadata"].get("deletionTimestamp")]
        evict(pod)
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0, out
    assert "starting again from checkpoint 2 (start 3)" in out
    assert (place.home / "epochs.json").read_text() == "[1, 1, 2, 2, 3, 3]"
    assert not list(place.home.glob("store/runs/spot/*/model/checkpoint*"))
    until(lambda: not pods())


def test_a_vendors_command_saves_when_its_pod_is_evicted(tmp_path: Path) -> None:
    from support.releases import linear_graph

    place = Place(tmp_path)
    ours = place.profile()
    mounts = [
        {"name": f"mount-of-ours-{number}", "mountPath": mount["path"]} for number, mount in enumerate(ours["mounts"])
    ]
    container = {"env": [{"name": name, "value": value} for name, value in ours["env"].items()], "volumeMounts": mounts}
    spec = {
        **ours["pod"]["spec"],
        "volumes": [{"name": one["name"], "hostPath": {"path": one["mountPath"]}} for one in mounts],
        "initContainers": [{"name": "stage", **container}], "containers": [{"name": "collect", **container}],
    }  # fmt: skip
    profile = {
        "on": "kubernetes", "image": "localhost/vendor:1", "foreign": True, "runner": "localhost/step:1",
        "pull": "never", "pod": {"spec": spec},
        "mounts": [{"folder": str(place.home), "path": str(place.home), "read_only": False}],
    }  # fmt: skip
    spec["volumes"] = [one for one in spec["volumes"] if one["hostPath"]["path"] != str(place.home)]
    for one in (spec["initContainers"][0], spec["containers"][0]):
        one["volumeMounts"] = [mount for mount in mounts if mount["mountPath"] != str(place.home)]
    (place.flow / "model.onnx").write_bytes(linear_graph(1.0))
    rows = "a,b,c,y\n" + "".join(f"{i % 3},{i % 5},{-i % 7},{i % 2}\n" for i in range(60))
    file = place.write(pipeline(profile, script="fit.sh", checkpoint="1h"), data_csv=rows, fit_sh=SCRIPT)
    run = place.start("run", str(file))

    def ready() -> bool:
        (pod,) = [one["metadata"]["name"] for one in pods()] or [""]
        if not pod or run.poll() is not None:
            return run.poll() is not None
        try:
            return "ready to be evicted" in kubectl("logs", pod, "-c", "step")
        except Exception:  # it has not started yet
            return False

    until(ready)
    assert run.poll() is None, run.communicate()[0]
    evict(pods()[0]["metadata"]["name"])
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0, out
    assert "starting again from checkpoint 1 (start 2)" in out
    until(lambda: not pods())
