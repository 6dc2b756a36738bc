"""A cluster of ours for tests: the real protocol for workloads, and every pod of a node really runs, as a process.

Enough of apps/v1 and core/v1: DaemonSets and Deployments (create, read, replace, patch, delete; 409 for an old resource
version), their controller (one pod a labelled node, ``maxUnavailable`` at a time, the readiness probe really asked),
pods by labels, logs, nodes. Paths in a pod's command are pointed to folders, its port is one that is free.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

Json = dict[str, Any]
_WORKLOAD = re.compile(r"^/apis/apps/v1/namespaces/[^/]+/(daemonsets|deployments)(?:/([^/]+))?$")
_LOG = re.compile(r"^/api/v1/namespaces/[^/]+/pods/([^/]+)/log$")
_COUNTS = ("desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled", "numberReady")
_KINDS = {"daemonsets": "DaemonSet", "deployments": "Deployment"}


class NodePod:
    """A pod of a node: the process of its container."""

    def __init__(self, name: str, node: str, template: Json, folder: Path, node_folder: Path) -> None:
        self.name, self.node, self.template, self.folder = name, node, template, folder
        folder.mkdir()
        self.container = template["spec"]["containers"][0]
        self.missing = self.container["image"].startswith("missing")
        self.ready, self._process = False, None
        if self.missing:
            return
        annotations = template["metadata"]["annotations"]
        for file, key in (("values.json", "values"), ("key.pub", "key")):
            (folder / file).write_text(annotations.get(f"edgewright.dev/{key}", ""))
        kept = any("hostPath" in volume for volume in template["spec"]["volumes"])
        home = str((node_folder if kept else folder) / "home")
        given = [part.replace("$(NODE_NAME)", node).replace("/edgewright/site", str(folder))
                 .replace("/var/lib/edgewright/node", home) for part in self.container["command"]]  # fmt: skip
        given[given.index("--port") + 1] = "0"
        command = [sys.executable, "-m", "edgewright.cli.main", *given[1:], "--ready-file", str(folder / "ready")]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def probe(self) -> None:
        """Ask the readiness probe."""
        if self._process is None or not (self.folder / "ready").exists():
            return
        url = json.loads((self.folder / "ready").read_text())["url"]
        try:
            with urllib.request.urlopen(url + self.container["readinessProbe"]["httpGet"]["path"], timeout=30) as said:
                self.ready = said.status == 200
        except (urllib.error.URLError, OSError):
            self.ready = False

    def shown(self) -> Json:
        """Return the pod as the API shows it."""
        state: Json = {"waiting": {"reason": "ErrImageNeverPull", "message": "not here"}} if self.missing else {
            "running": {}}  # fmt: skip
        return {
            "metadata": {"name": self.name, **self.template["metadata"]},
            "spec": {**self.template["spec"], "nodeName": self.node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": str(self.ready)}],
                       "containerStatuses": [{"name": "node", "restartCount": 0, "state": state,
                                              "image": "i", "imageID": "i", "ready": self.ready}]},
        }  # fmt: skip

    def end(self) -> None:
        """Stop the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class KubeNodes:
    """The cluster; a context manager.

    Attributes:
        nodes: Labels by node.
        down: Nodes that are not up; their pods stay as they are.
        workloads: By kind and name.
        pods: By workload's name and node.
        most_changing: The most pods of one workload that were not ready at the same time, while it had been proven.
        forbidden: Paths that may not be read.
    """

    def __init__(self, nodes: dict[str, dict[str, str]]) -> None:
        self.nodes, self.down = nodes, set[str]()
        self.workloads: dict[tuple[str, str], Json] = {}
        self.pods: dict[tuple[str, str], NodePod] = {}
        self.most_changing, self.forbidden = 0, set[str]()
        self._counter, self._lock, self._stopping = 0, threading.RLock(), threading.Event()
        self._folder = tempfile.TemporaryDirectory(prefix="kube-nodes-", ignore_cleanup_errors=True)
        cluster = self

        class Handler(_Handler):
            kube = cluster

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._threads = [threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True),
                         threading.Thread(target=self._control, daemon=True)]  # fmt: skip

    def __enter__(self) -> KubeNodes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._threads[1].join(60)
        for pod in self.pods.values():
            pod.end()
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def connection(self) -> str:
        """Return an Airflow connection that leads here."""
        server = f"http://127.0.0.1:{self._server.server_port}"
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "f", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "f", "user": "u", "namespace": "edge"}}],
        }  # fmt: skip
        return json.dumps({"conn_type": "kubernetes", "extra": {"kube_config": json.dumps(config)}})

    # -- the API -----------------------------------------------------------------------------------------------

    def change(self, kind: str, name: str, body: Json | None, how: str) -> tuple[int, Json]:
        """Create, replace, patch or delete a workload."""
        with self._lock:
            key = (kind, name)
            there = self.workloads.get(key)
            if how == "create":
                if there is not None:
                    return 409, _status(409, f"{name} already exists")
                body["metadata"]["generation"] = 1
            elif there is None:
                return 404, _status(404, f"{kind} {name} not found")
            elif how == "delete":
                del self.workloads[key]
                return 200, _status(200, "")
            elif how == "replace":
                if body["metadata"].get("resourceVersion") != there["metadata"]["resourceVersion"]:
                    return 409, _status(409, "the object has been modified")
                grown = body["spec"] != there["spec"]
                body["metadata"]["generation"] = there["metadata"]["generation"] + grown
            else:
                patched = copy.deepcopy(there)
                for label, value in body["metadata"]["annotations"].items():
                    patched["metadata"]["annotations"].pop(label, None)
                    if value is not None:
                        patched["metadata"]["annotations"][label] = value
                body = patched
            self._counter += 1
            body["metadata"]["resourceVersion"] = str(self._counter)
            body["status"] = there["status"] if there else dict.fromkeys(_COUNTS, 0)
            self.workloads[key] = body
            return 201 if how == "create" else 200, body

    # -- the controller ----------------------------------------------------------------------------------------

    def _control(self) -> None:
        while not self._stopping.wait(0.05):
            for pod in list(self.pods.values()):
                pod.probe()
            with self._lock:
                for (kind, name), workload in list(self.workloads.items()):
                    self._reconcile(kind, name, workload)
                names = {name for _, name in self.workloads}
                for key in [key for key in self.pods if key[0] not in names]:
                    self.pods.pop(key).end()

    def _reconcile(self, kind: str, name: str, workload: Json) -> None:
        template, spec = workload["spec"]["template"], workload["spec"]
        wanted = spec["template"]["spec"]["nodeSelector"].items()
        places = [node for node, labels in self.nodes.items() if wanted <= labels.items()][: spec.get("replicas")]
        strategy = spec.get("updateStrategy") or spec["strategy"]
        most = strategy["rollingUpdate"]["maxUnavailable"]
        unready = [n for n in places if (name, n) not in self.pods or not self.pods[name, n].ready or n in self.down]
        for node in sorted(places, key=lambda node: node not in unready):
            pod = self.pods.get((name, node))
            if node in self.down or (pod is not None and pod.template == template):
                continue
            if pod is not None and node not in unready:
                if len(unready) >= most:
                    continue
                unready.append(node)
            if pod is not None:
                pod.end()
            self._counter += 1
            root = Path(self._folder.name)
            (root / node).mkdir(exist_ok=True)
            self.pods[name, node] = NodePod(
                f"{name}-{self._counter}", node, copy.deepcopy(template), root / str(self._counter), root / node
            )
        if any(self.pods[name, node].ready for node in places if (name, node) in self.pods):
            self.most_changing = max(self.most_changing, len(unready))
        ours = [self.pods[name, node] for node in places if (name, node) in self.pods]
        updated = sum(pod.template == template for pod in ours)
        available = sum(pod.ready and pod.node not in self.down for pod in ours)
        status = {"observedGeneration": workload["metadata"]["generation"]}
        if kind == "DaemonSet":
            status |= {"desiredNumberScheduled": len(places), "currentNumberScheduled": len(places),
                       "numberMisscheduled": 0, "numberReady": available,
                       "updatedNumberScheduled": updated, "numberAvailable": available}  # fmt: skip
        else:
            status |= {"replicas": len(places), "updatedReplicas": updated, "availableReplicas": available}
        workload["status"] = status


def _status(code: int, message: str) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "code": code, "message": message}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kube: KubeNodes

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, code: int, document: Any) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(document, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _change(self, how: str) -> None:
        match = _WORKLOAD.match(urlparse(self.path).path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        assert match is not None
        self._send(*self.kube.change(_KINDS[match[1]], match[2] or body["metadata"]["name"], body, how))

    def do_POST(self) -> None:
        self._change("create")

    def do_PUT(self) -> None:
        self._change("replace")

    def do_PATCH(self) -> None:
        self._change("patch")

    def do_DELETE(self) -> None:
        self._change("delete")

    def do_GET(self) -> None:
        url = urlparse(self.path)
        wanted = dict(one.split("=") for one in parse_qs(url.query).get("labelSelector", [""])[0].split(",") if one)
        workload, log = _WORKLOAD.match(url.path), _LOG.match(url.path)
        pods = list(self.kube.pods.values())
        if url.path in self.kube.forbidden:
            self._send(403, _status(403, f"{url.path} is forbidden"))
        elif workload:
            found = self.kube.workloads.get((_KINDS[workload[1]], workload[2]))
            self._send(*((404, _status(404, "not found")) if found is None else (200, found)))
        elif log:
            (pod,) = [one for one in pods if one.name == log[1]]
            text = None if pod.missing else (pod.folder / "log").read_bytes()
            self._send(*((400, _status(400, "the container waits to start")) if text is None else (200, text)))
        elif url.path.endswith("/nodes"):
            shown = [{"metadata": {"name": name, "labels": labels},
                      "status": {"conditions": [{"type": "Ready", "status": str(name not in self.kube.down)}]}}
                     for name, labels in self.kube.nodes.items() if wanted.items() <= labels.items()]  # fmt: skip
            self._send(200, {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": shown})
        else:
            items = [pod.shown() for pod in pods]
            items = [one for one in items if wanted.items() <= one["metadata"]["labels"].items()]
            self._send(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
