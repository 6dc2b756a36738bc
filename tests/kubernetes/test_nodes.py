"""nodes: a training on four pods of a real cluster that find each other by name; all of them or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.cluster import Place, evict, kubectl, marks, pods, until

pytestmark = marks
ROWS = "a,y\n" + "".join(f"{number % 7},{number % 2}\n" for number in range(60))
#: Every node tells the first one its number, over the address of PyTorch's rendezvous; the first one answers the sum.
FIT = """
import os, socket, time
from sklearn.linear_model import LogisticRegression

def reduce_sum(value):
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    if rank:
        for _ in range(600):
            try:
                link = socket.create_connection(place, timeout=300)
                break
            except OSError:
                time.sleep(0.1)
        with link:
            link.sendall(f"{value} ".encode())
            return int(link.makefile().readline())
    with socket.create_server(("", place[1])) as server:
        links = [server.accept()[0] for _ in range(world - 1)]
        total = value + sum(int(link.recv(100)) for link in links)
        for link in links:
            link.sendall(f"{total}\\n".encode())
            link.close()
    return total

def fit(data, broken=-1, waits=False):
    rank = int(os.environ["RANK"])
    if rank == broken:
        raise ValueError(f"no memory on node {rank}")
    total = reduce_sum(rank + 1)
    if waits and not (data.checkpoint / "done").exists():
        (data.checkpoint / "done").write_text("once")
        time.sleep(600)
    data.log_metric("total", total)
    open(f"HOME/node-{rank}", "w").write(str(total))
    return LogisticRegression().fit(data.X, data.y)
"""


def write(place: Place, profile: dict[str, Any], **train: Any) -> str:
    document = {
        "dag_id": "many", "profiles": {"four": place.profile(nodes=4, **profile)},
        "tasks": [
            {"id": "data", "uses": "ingest", "with": {"source": "data.csv", "label": "y"}},
            {"id": "model", "uses": "train", "profile": "four",
             "with": {"data": {"$x": "data"}, "entry": "model.py:fit", **train}},
        ],
    }  # fmt: skip
    return str(place.write(document, data_csv=ROWS, model_py=FIT.replace("HOME", str(place.home))))


def left() -> str:
    return kubectl("get", "pods,jobs,services", "-l", "app.kubernetes.io/managed-by=edgewright", "--no-headers")


def test_four_nodes_train_one_model(tmp_path: Path) -> None:
    place = Place(tmp_path)
    done = place.command("run", write(place, {}))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file.name: file.read_text() for file in place.home.glob("node-*")}["node-0"] == "10"
    (result,) = place.home.glob("store/runs/many/*/model/result.json")
    assert json.loads(result.read_text())["state"] == "success"
    until(lambda: not left())


def test_a_node_that_fails_ends_all_and_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path)
    done = place.command("run", write(place, {}, args={"broken": 2}))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "node 2: model.py:fit raised ValueError: no memory on node 2" in done.stdout + done.stderr
    until(lambda: not left())


def test_nodes_that_do_not_fit_are_none_at_all(tmp_path: Path) -> None:
    place = Place(tmp_path)
    done = place.command("run", write(place, {"start_timeout": 20, "resources": {"nvidia.com/gpu": 1}}))
    assert done.returncode == 70, done.stdout + done.stderr
    assert "Unschedulable" in done.stdout + done.stderr
    assert not list(place.home.glob("node-*"))
    until(lambda: not left())


def test_an_evicted_node_makes_all_start_again_from_the_checkpoint(tmp_path: Path) -> None:
    place = Place(tmp_path)
    run = place.start("run", write(place, {}, args={"waits": True}, checkpoint=1))
    until(lambda: run.poll() is not None or list(place.home.glob("store/runs/many/*/model/checkpoint.json")))
    assert run.poll() is None, run.communicate()[0]
    (third,) = [one["metadata"]["name"] for one in pods() if "-2-" in one["metadata"]["name"]]
    evict(third)
    out, _ = run.communicate(timeout=380)
    assert run.returncode == 0, out
    assert "starting again from checkpoint 1 (start 2)" in out
    until(lambda: not left())
