"""An API server of ours for tests: the real protocol for pods, and each pod's command really runs, as a process.

Enough of core/v1 for Airflow's operator of pods, its trigger and our own calls: create (409 for a name that is taken),
read, list, delete, log (followed and not), nodes, events. Projected files that show an annotation are written into a
folder, and the command's paths are pointed there.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

_POD = re.compile(r"^/api/v1/namespaces/([^/]+)/pods/([^/]+?)(/log)?$")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Pod:
    """One pod and the process of its first container."""

    def __init__(self, document: dict[str, Any], folder: Path, behaviour: str) -> None:
        self.document, self.folder, self.behaviour = document, folder, behaviour
        self.started, self.process, self.deleted = _now(), None, False
        self.log = folder / "log"
        self.log.touch()
        if behaviour not in ("unschedulable", "no-image"):
            self._start()

    def _start(self) -> None:
        container = self.document["spec"]["containers"][0]
        text = self.document["metadata"]["annotations"]["edgewright.dev/request"]
        (self.folder / "request.json").write_text(text)
        command = [part.replace("/edgewright/request", str(self.folder)) for part in container["command"]]
        command[0] = sys.executable
        if self.behaviour == "slow":
            command = [sys.executable, "-c", "import time; print('epoch 1/3 loss 0.5', flush=True); time.sleep(60)"]
        env = {entry["name"]: entry.get("value", "from-a-secret") for entry in container["env"]}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log)

    def shown(self) -> dict[str, Any]:
        """Return the pod as the API shows it."""
        document = json.loads(json.dumps(self.document))
        status: dict[str, Any] = {"phase": "Pending"}
        container = {"name": "step", "image": "i", "imageID": "", "restartCount": 0, "ready": False}
        if self.behaviour == "unschedulable":
            status["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                     "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}]  # fmt: skip
        elif self.behaviour == "no-image":
            container["state"] = {"waiting": {"reason": "ErrImageNeverPull", "message": "image is not present"}}
            status["containerStatuses"] = [container]
        elif self.process is not None:
            code = self.process.poll()
            if code is None:
                status["phase"], container["state"] = "Running", {"running": {"startedAt": self.started}}
            else:
                reason = "OOMKilled" if self.behaviour == "oom" else "Error" if code else "Completed"
                end = {"exitCode": 137 if reason == "OOMKilled" else code, "reason": reason,
                       "startedAt": self.started, "finishedAt": _now()}  # fmt: skip
                status["phase"], container["state"] = "Failed" if end["exitCode"] else "Succeeded", {"terminated": end}
            status["containerStatuses"] = [container]
        document["status"] = status
        return document

    def end(self) -> None:
        """Kill the process."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class KubeApi:
    """The server; a context manager.

    Attributes:
        pods: By name, those that are there.
        created: Documents of all pods that were ever created.
        objects: Answers by path below ``/api`` or ``/apis``: the status and the document.
        behaviours: What the next pods do: ``run``, ``slow``, ``unschedulable``, ``no-image``, ``oom``; the last stays.
    """

    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.created: list[dict[str, Any]] = []
        self.behaviours = ["run"]
        self.quota: str | None = None
        self.objects: dict[str, tuple[int, dict[str, Any]]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="kube-api-")
        api = self

        class Handler(_Handler):
            kube = api

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> KubeApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for pod in list(self.pods.values()):
            pod.end()
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig that leads here."""
        server = f"http://127.0.0.1:{self._server.server_port}"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "f", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "f", "user": "u", "namespace": "ml"}}],
        }))  # fmt: skip
        return path

    def create(self, namespace: str, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Take a pod in and start it."""
        name = document["metadata"]["name"]
        if self.quota:
            return 403, {"kind": "Status", "code": 403, "reason": "Forbidden", "message": self.quota}
        if name in self.pods:
            return 409, {"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": f"{name} already exists"}
        document["metadata"].update(namespace=namespace, uid=f"u-{len(self.created)}", creationTimestamp=_now())
        self.created.append(document)
        behaviour = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        self.pods[name] = Pod(document, folder, behaviour)
        return 201, self.pods[name].shown()

    def delete(self, name: str) -> bool:
        """Remove a pod, as ``kubectl delete pod`` does."""
        pod = self.pods.pop(name, None)
        if pod is not None:
            pod.end()
        return pod is not None


def _field_fits(pod: dict[str, Any], name: str, value: str) -> bool:
    place = pod
    for part in name.split("."):
        place = place[part]
    return str(place) != value[1:] if value.startswith("!") else str(place) == value


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kube: KubeApi

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, code: int, document: Any) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(document, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _missing(self, name: str) -> None:
        self._send(404, {"kind": "Status", "code": 404, "reason": "NotFound", "message": f'pods "{name}" not found'})

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def do_POST(self) -> None:
        url = urlparse(self.path)
        if "dryRun" in parse_qs(url.query):
            body = self._body()
            refused = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": self.kube.quota}
            self._send(403, refused) if self.kube.quota else self._send(201, body)
            return
        self._send(*self.kube.create(url.path.split("/")[4], self._body()))

    def do_DELETE(self) -> None:
        self._body()
        name = urlparse(self.path).path.split("/")[-1]
        self._send(200, {"kind": "Status", "status": "Success"}) if self.kube.delete(name) else self._missing(name)

    def do_PATCH(self) -> None:
        change, pod = self._body(), self.kube.pods.get(urlparse(self.path).path.split("/")[-1])
        if pod is None:
            self._missing(urlparse(self.path).path.split("/")[-1])
            return
        for name, values in change["metadata"].items():
            pod.document["metadata"][name] |= values
        self._send(200, pod.shown())

    def do_GET(self) -> None:
        url = urlparse(self.path)
        match = _POD.match(url.path)
        if url.path in self.kube.objects:
            self._send(*self.kube.objects[url.path])
        elif match and match[2] not in self.kube.pods:
            self._missing(match[2])
        elif match and match[3]:
            self._log(self.kube.pods[match[2]], follow=parse_qs(url.query).get("follow") == ["True"])
        elif match:
            self._send(200, self.kube.pods[match[2]].shown())
        elif url.path.endswith("/nodes"):
            status = {"allocatable": {"cpu": "2", "memory": "8Gi", "xilinx.com/fpga": "1"}}
            self._send(
                200, {"kind": "NodeList", "metadata": {}, "items": [{"metadata": {"name": "n"}, "status": status}]}
            )
        elif url.path.startswith("/version"):
            known = dict.fromkeys(("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"), "x")
            self._send(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0", **known})
        elif re.match(r"^/api/v1/(namespaces/[^/]+/)?pods$", url.path):
            if "watch" in parse_qs(url.query):
                self._watch(parse_qs(url.query))
                return
            items = self._selected(parse_qs(url.query))
            self._send(
                200, {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}
            )
        else:
            self._send(200, {"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []})

    def _selected(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """Return the pods that a query's selectors of labels and fields choose."""
        labels = dict(one.split("=") for one in query.get("labelSelector", [""])[0].split(",") if one)
        fields = [one.replace("!=", "=!").split("=") for one in query.get("fieldSelector", [""])[0].split(",") if one]
        shown = [pod.shown() for pod in list(self.kube.pods.values())]
        return [one for one in shown if labels.items() <= one["metadata"].get("labels", {}).items()
                and all(_field_fits(one, name, value) for name, value in fields)]  # fmt: skip

    def _watch(self, query: dict[str, list[str]]) -> None:
        """Send the chosen pods, and each once more when it has changed, is gone or is not chosen any more."""
        deadline = time.monotonic() + float(query["timeoutSeconds"][0])
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        known: dict[str, dict[str, Any]] = {}
        while time.monotonic() < deadline and not select.select([self.connection], [], [], 0)[0]:
            now = {one["metadata"]["name"]: one for one in self._selected(query)}
            events = [("MODIFIED" if name in known else "ADDED", one) for name, one in now.items()
                      if known.get(name) != one]  # fmt: skip
            events += [("DELETED", one) for name, one in known.items() if name not in now]
            for kind, one in events:
                self.wfile.write(json.dumps({"type": kind, "object": one}).encode() + b"\n")
            self.wfile.flush()
            known = now
            time.sleep(0.05)

    def _log(self, pod: Pod, *, follow: bool) -> None:
        while follow and pod.process is not None and pod.process.poll() is None:
            time.sleep(0.05)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z ", time.gmtime())
        timestamps = "timestamps=True" in self.path
        lines = pod.log.read_text(errors="replace").splitlines()
        self._send(200, "".join(f"{stamp if timestamps else ''}{line}\n" for line in lines).encode())
