"""``foreign: true``: somebody else's image does a step's work; ours stages before and collects after.

It runs the script of a ``train`` step, or compiles for a target of ``quantize`` that only its maker's image compiles.
The vendor's image needs nothing of ours, in a pod a ``/bin/sh``. It sees one folder: ``work`` (the pipeline's files),
``input``, ``output``, ``args.json``, ``about.json``. In a pod an init container of ours fills it, the vendor's
container runs the script and leaves its exit code there, and a third one checks what was left, uploads it and writes
the result. Docker does the same with a mounted folder, and our halves run in the worker.
"""

from __future__ import annotations

import json
import posixpath
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError, SystemFault, UserFault
from edgewright.spec.profiles import Profile
from edgewright.steps.contract import StepRequest
from edgewright.steps.options import options
from edgewright.targets import known_targets

Json = dict[str, Any]
SHARED = "/edgewright/shared"
COLLECT, STAGE = "collect", "stage"
#: What the image runs where it compiles.
RUN = "run.sh"
_INTERPRETERS = {
    ".py": "python3",
    ".r": "Rscript",
    ".sh": "sh",
    ".jl": "julia",
    ".js": "node",
    ".pl": "perl",
    ".rb": "ruby",
}
#: Runs the command and says how it ended. $$ is seen by the collector, for both share one process namespace.
#: The command is asked to end when the container is: a shell alone would not pass the signal on.
_WRAPPER = f"""echo $$ > {SHARED}/pid
"$@" &
child=$!
trap 'kill -TERM $child 2>/dev/null' TERM
wait $child
code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
echo $code > {SHARED}/code
exit $code"""


def refusal(profile: Profile, request: StepRequest) -> str | None:
    """Return what a foreign image cannot do for a request."""
    if not profile.foreign or (request.step == "train" and request.config.get("script")):
        return None
    names = [name for name, target in known_targets().items() if target.foreign]
    if request.step == "quantize" and request.config.get("target") in names:
        return None
    return ("a foreign image runs the script: of a train step, or compiles for a target of quantize that only such an "
            f"image compiles ({', '.join(names)})")  # fmt: skip


def command(request: StepRequest) -> list[str]:
    """Return the vendor's command line, with paths as the container sees them.

    Raises:
        ConfigError: nobody knows what runs the script.
    """
    config = request.config
    if request.step == "quantize":
        return ["sh", f"{SHARED}/work/{RUN}"]
    script = str(config["script"])
    interpreter = list(config.get("interpreter") or ())
    if not interpreter:
        ending = posixpath.splitext(script)[1].lower()
        if ending not in _INTERPRETERS:
            raise ConfigError(f"nobody knows what runs {script}", where="with.interpreter",
                              hint="interpreter: [PROGRAM], as the image has it")  # fmt: skip
        interpreter = [_INTERPRETERS[ending]]
    inputs = {name: f"{SHARED}/input/{file}" for name, file in (config.get("inputs") or {}).items()}
    values = {**json.loads(json.dumps(config.get("args") or {})), **inputs}
    return [*interpreter, f"{SHARED}/work/{script}", *options(values)]


def environment(request: StepRequest) -> dict[str, str]:
    """Return what the vendor's command finds in its environment."""
    output = {"EDGEWRIGHT_OUTPUT": f"{SHARED}/output"}
    if request.step == "quantize":
        return output
    return {
        **output,
        "EDGEWRIGHT_INPUT": f"{SHARED}/input",
        "EDGEWRIGHT_ARGS": f"{SHARED}/args.json",
        "EDGEWRIGHT_ABOUT": f"{SHARED}/about.json",
        "EDGEWRIGHT_SEED": str(request.config.get("seed", 0)),
        **({"EDGEWRIGHT_CHECKPOINT": f"{SHARED}/checkpoint"} if request.config.get("checkpoint") else {}),
    }


def stage(request: StepRequest, folder: Path) -> None:
    """Fill the folder in a process of its own, so that a worker loads no library for tables.

    Raises:
        UserFault: the data or the code are not there.
        SystemFault: something else is broken.
    """
    file = folder / "request.json"
    file.write_text(request.model_dump_json())
    call = [sys.executable, "-m", "edgewright.steps.foreign", "stage", str(file), str(folder), SHARED]
    done = subprocess.run(call, capture_output=True, text=True, check=False)  # noqa: S603 (our own arguments)
    if done.returncode:
        words = " ".join(done.stderr.rpartition("error: staging: ")[2].split()) or "staging failed and said nothing"
        raise (UserFault if done.returncode == 1 else SystemFault)(words)


def surround(spec: Json, container: Json, profile: Profile, request: StepRequest) -> None:
    """Make the step's container the vendor's, and put ours before and after it.

    ``spec`` and ``container`` are changed here.
    """
    ours = {key: value for key, value in container.items() if key not in ("name", "resources")}
    ours |= {"image": profile.runner, "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}}}
    shared = {"name": "shared", "mountPath": SHARED}
    spec["volumes"].append({"name": "shared", "emptyDir": {}})
    spec["shareProcessNamespace"] = True
    ours["volumeMounts"] = [*container["volumeMounts"], shared]
    call = ["python", "-m", "edgewright.steps.foreign"]
    file = "/edgewright/request/request.json"
    _put(spec.setdefault("initContainers", []), STAGE, {**ours, "command": [*call, "stage", file, SHARED]})
    _put(spec["containers"], COLLECT, {**ours, "command": [*call, "collect", file, SHARED]})
    container["command"] = ["/bin/sh", "-c", _WRAPPER, "sh", *command(request)]
    container["workingDir"] = f"{SHARED}/work"
    container["env"] = [
        *_vendors(container, profile),
        *({"name": n, "value": v} for n, v in environment(request).items()),
    ]
    # neither the request nor what only our containers need
    keep = [mount for mount in container["volumeMounts"] if mount["name"] != "request"]
    container["volumeMounts"] = [*keep, shared]


def _put(containers: list[Json], name: str, container: Json) -> None:
    """Add a container, over one of that name where ``pod:`` has it."""
    given = next((one for one in containers if one.get("name") == name), None)
    if given is None:
        containers.append(given := {"name": name})
    lists = {key: [*given.get(key, []), *container.get(key, [])] for key in ("env", "volumeMounts")}
    given.update({**container, **lists, "resources": given.get("resources") or container["resources"]})


def _vendors(container: Json, profile: Profile) -> list[Json]:
    """Return the environment without secrets: those of the store and MLflow are for our containers."""
    return [entry for entry in container["env"] if entry["name"] not in profile.secrets]
