"""Write what the cluster's programs read: configurations, a kubeconfig, and three images made from nothing.

The step's image is empty but for links: its pods see this machine's ``/usr`` and the package's environment as mounts,
so that the very code under test runs in a real container without any registry.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path

LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}
FOLDERS = ("tmp", "usr", "etc", "dev", "proc", "sys", "edgewright", "edgewright/request")
SANDBOX, STEP, VENDOR = "localhost/pause:1", "localhost/step:1", "localhost/vendor:1"


def main(folder: Path, state: Path, node: str) -> None:
    """Write all files below the state folder."""
    read = lambda name: base64.b64encode((state / "pki" / name).read_bytes()).decode()  # noqa: E731
    cluster = {"server": f"https://{node}:6443", "certificate-authority-data": read("ca.crt")}
    admin = {"client-certificate-data": read("admin.crt"), "client-key-data": read("admin.key")}
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "admin", "user": admin}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "admin", "namespace": "default"}}],
    }  # fmt: skip
    (state / "kubeconfig").write_text(json.dumps(kubeconfig))
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{state}/containerd.sock", "cgroupDriver": "cgroupfs", "oomScoreAdj": 0,
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": False},
                           "x509": {"clientCAFile": f"{state}/pki/ca.crt"}},
        "authorization": {"mode": "AlwaysAllow"}, "failSwapOn": False, "failCgroupV1": False,
        "enforceNodeAllocatable": [], "makeIPTablesUtilChains": False, "address": node, "clusterDNS": [node],
        "clusterDomain": "cluster.local",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100, "resolvConf": "", "podLogsDir": f"{state}/logs", "maxPods": 110,
    }  # fmt: skip
    (state / "kubelet.yaml").write_text(json.dumps(kubelet))
    names = f"kubernetes cluster.local {{\n    kubeconfig {state}/kubeconfig\n  }}"
    (state / "Corefile").write_text(f".:53 {{\n  bind {node}\n  errors\n  {names}\n}}\n")
    network = {
        "cniVersion": "0.4.0", "name": "pods", "plugins": [
            {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False,
             "ipam": {"type": "host-local", "dataDir": f"{state}/ipam", "subnet": "203.0.113.0/24",
                      "routes": [{"dst": "0.0.0.0/0"}]}}],
    }  # fmt: skip
    (state / "cni" / "10-pods.conflist").write_text(json.dumps(network))
    (state / "containerd.toml").write_text(f"""
version = 2
root = "{state}/containerd"
state = "{state}/run"
[grpc]
address = "{state}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{SANDBOX}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{folder}/root/usr/lib/cni"
conf_dir = "{state}/cni"
""")
    pause = (folder / "bin" / "pause").read_bytes()
    _image(state / "pause.tar", SANDBOX, {"pause": pause}, {"Entrypoint": ["/pause"]})
    users = b"root:x:0:0::/:/bin/sh\nstep:x:10001:10001::/tmp:/bin/sh\n"
    # somebody else's: a shell and a few commands, no Python
    box = (folder / "root" / "bin" / "busybox").read_bytes()
    commands = {f"usr/bin/{name}": box for name in ("sh", "cp", "wc", "sleep", "cat", "pgrep", "id", "grep")}
    _image(
        state / "vendor.tar", VENDOR, {"etc/passwd": b"root:x:0:0::/:/bin/sh\n", **commands}, {"Env": ["PATH=/usr/bin"]}
    )
    _image(state / "step.tar", STEP, {"etc/passwd": users}, {"Env": ["PATH=/usr/bin:/bin"]})


def _image(target: Path, name: str, files: dict[str, bytes], config: dict[str, object]) -> None:
    """Write an image in the form of ``docker save``."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        for folder in FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)
        for link, place in LINKS.items():
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, place
            archive.addfile(entry)
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    about = {"architecture": "amd64", "os": "linux", "config": config,
             "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}  # fmt: skip
    text = json.dumps(about).encode()
    named = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": named, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        for path, data in (
            (named, text),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
