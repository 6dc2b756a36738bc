"""``profiles:``: named places to run, and what each kind of place can be asked for. Nothing here starts anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import Field

from edgewright.errors import ConfigError
from edgewright.spec.code import locate
from edgewright.spec.faults import Faults, Path, listing, near
from edgewright.spec.kubernetes_fields import Mount as Mount
from edgewright.spec.kubernetes_fields import ObjectName, Quantity, Secret, Toleration, Wait
from edgewright.spec.step_config import check_model
from edgewright.spec.steps.base import StepConfig


class Python(StepConfig):
    """A virtual environment of its own, built once for each lock."""

    extras: Annotated[list[str], Field(description="Extras of Edgewright, such as torch.")] = []
    requirements: Annotated[
        str | list[str] | None,
        Field(description="File of the pipeline's folder (a lock with hashes, best), or a list of requirements."),
    ] = None


class Build(StepConfig):
    """An image that the engine makes, once for what it is made of."""

    dockerfile: Annotated[str, Field(min_length=1, description="File of the pipeline's folder.")] = "Dockerfile"
    files: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(description="Files and folders of the pipeline's folder that the Dockerfile copies."),
    ] = []
    target: Annotated[str | None, Field(min_length=1, description="Stage of the Dockerfile. Default: the last.")] = None
    args: Annotated[dict[str, str], Field(description="Values of its ARGs; no secrets.")] = {}


class Profile(StepConfig):
    """A named place to run."""

    on: Annotated[Literal["local", "docker", "kubernetes"], Field(description="What runs the task.")]
    python: Annotated[Python | None, Field(description="local: in a virtual environment of its own.")] = None
    image: Annotated[
        str | None, Field(min_length=1, description="Container image; docker: build makes one of a Dockerfile.")
    ] = None
    build: Annotated[
        Build | None,
        Field(description="docker: what image: build makes; by default the Dockerfile."),
    ] = None
    foreign: Annotated[
        bool,
        Field(
            description="The image is somebody else's, with nothing of ours: it runs the script: of a train step, or "
            "compiles for a target of quantize that only it can."
        ),
    ] = False
    runner: Annotated[
        str | None,
        Field(min_length=1, description="kubernetes: image of ours that works for a foreign one."),
    ] = None
    pull: Annotated[Literal["always", "missing", "never"], Field(description="When the image is pulled.")] = "missing"
    resources: Annotated[
        dict[str, Quantity],
        Field(description="cpu, memory, ephemeral-storage, and any vendor's name, such as nvidia.com/gpu."),
    ] = {}
    gpus: Annotated[
        Literal["all"] | Annotated[int, Field(ge=1)] | None, Field(description="docker: all, or how many.")
    ] = None
    network: Annotated[str | None, Field(description="docker: network; host for services on this machine.")] = None
    env: Annotated[dict[str, str], Field(description="Environment variables; no secrets.")] = {}
    secrets: Annotated[dict[str, Secret], Field(description="Environment variables that are kept elsewhere.")] = {}
    mounts: Annotated[list[Mount], Field(description="Files that the container sees.")] = []
    shm: Annotated[Quantity | None, Field(description="Size of /dev/shm, for data loaders of PyTorch.")] = None
    namespace: Annotated[ObjectName | None, Field(description="kubernetes: default: the connection's.")] = None
    connection: Annotated[str, Field(description="kubernetes: Airflow connection.")] = "kubernetes_default"
    node_selector: Annotated[dict[str, str], Field(description="Labels that a node must have.")] = {}
    tolerations: Annotated[list[Toleration], Field(description="Kubernetes tolerations.")] = []
    pull_secrets: Annotated[list[ObjectName], Field(description="Secrets for the image's registry.")] = []
    spot: Annotated[bool, Field(description="Whether nodes that may vanish will do; an evicted pod starts again.")] = (
        False
    )
    service_account: Annotated[
        ObjectName | None, Field(description="Workload identity; its token is mounted only then.")
    ] = None
    priority: Annotated[ObjectName | None, Field(description="PriorityClass.")] = None
    runtime_class: Annotated[ObjectName | None, Field(description="RuntimeClass, such as nvidia.")] = None
    queue: Annotated[str | None, Field(description="Kueue LocalQueue.")] = None
    nodes: Annotated[
        int, Field(ge=1, le=1000, description="kubernetes: on how many nodes a train step runs together, as one Job.")
    ] = 1
    volume_claim: Annotated[
        ObjectName | None, Field(description="Claim with the file:// artifact store, mounted at the store's path.")
    ] = None
    start_timeout: Annotated[Wait, Field(description="How long a pod may wait for a node and its image.")] = "10m"
    pod: Annotated[
        str | dict[str, Any] | None,
        Field(description="Pod (metadata, spec) that everything else is put over, or a file of the pipeline's folder."),
    ] = None


_CONTAINER = frozenset({"image", "foreign", "pull", "resources", "env", "secrets", "mounts", "shm"})
#: Which keys a place honours. What is not here is refused, never dropped.
KEYS: dict[str, frozenset[str]] = {
    "local": frozenset({"on", "python", "env"}),
    "docker": frozenset({"on", "gpus", "network", "build", *_CONTAINER}),
    "kubernetes": frozenset(set(Profile.model_fields) - {"python", "gpus", "network", "build"}),
}
_MOUNTS = {"docker": ("folder",), "kubernetes": ("folder", "claim", "secret", "config_map")}
#: Resources without a vendor; all others are named vendor/device.
RESOURCES = ("cpu", "memory", "ephemeral-storage")
_DOCKER_RESOURCES = ("cpu", "memory")
#: What ``image:`` says where a Dockerfile makes it.
BUILD = "build"
#: The parts of ``pod:``.
POD_KEYS = ("apiVersion", "kind", "metadata", "spec")
LOCAL = Profile(on="local")


def read_profiles(value: Any, faults: Faults, folder: FilePath | None = None) -> dict[str, dict[str, Any]]:
    """Return the profiles of the document, after noting what is wrong with them.

    Args:
        value: What stands there.
        faults: Where to note.
        folder: The pipeline's folder, where files are looked for; they are not where it is left out.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.add(("profiles",), "must be a mapping of names", code="type")
        return {}
    for name, profile in value.items():
        place = ("profiles", name)
        if name == "local":
            faults.add(place, "local is always there", allowed="another name", code="value", key=True)
        before = len(faults.found)
        _check_profile(profile, place, faults)
        if folder is not None and len(faults.found) == before:
            _check_build_files(profile, place, folder, faults)
    return value


def _check_build_files(profile: Mapping[str, Any], place: Path, folder: FilePath, faults: Faults) -> None:
    if profile.get("image") != BUILD:
        return
    build = profile.get("build") or {}
    named: list[tuple[Path, str]] = [(("build", "files", n), name) for n, name in enumerate(build.get("files") or [])]
    key: Path = ("build", "dockerfile") if "dockerfile" in build else ("image",)
    for at, name in [(key, build.get("dockerfile", "Dockerfile")), *named]:
        found = locate(folder, name)
        if found is not None and not found[1]:
            faults.add((*place, *at), f"{name} leads out of the pipeline's folder", code="path")
        elif found is None or not (found[0].is_file() or (at != key and found[0].is_dir())):
            here = [file.name for file in folder.iterdir()]
            faults.add((*place, *at), f"no such file: {name}", allowed="a path in the pipeline's folder",
                       suggestion=near(name, here), code="missing-file")  # fmt: skip


def _check_profile(profile: Any, place: Path, faults: Faults) -> None:
    before = len(faults.found)
    check_model(Profile, profile, place, faults)
    if len(faults.found) > before or not isinstance(profile, dict):
        return
    kind = profile["on"]
    for key in profile:
        if key not in KEYS[kind]:
            where = " or ".join(name for name, keys in KEYS.items() if key in keys)
            faults.add((*place, key), f"{key!r} is not for on: {kind}", allowed=f"it is for {where}",
                       code="combination", key=True)  # fmt: skip
    if kind != "local":
        _check_container(kind, profile, place, faults)


def _check_container(kind: str, profile: Mapping[str, Any], place: Path, faults: Faults) -> None:
    _check_image(kind, profile, place, faults)
    if kind == "kubernetes":
        _check_foreign(profile, place, faults)
    _check_pod(profile.get("pod"), (*place, "pod"), faults)
    for name in profile.get("resources") or {}:
        if "/" not in name and name not in RESOURCES and not name.startswith("hugepages-"):
            faults.add((*place, "resources", name), f"there is no resource {name!r}", key=True, code="unknown-key",
                       allowed=f"{listing(RESOURCES)}, or VENDOR/DEVICE such as nvidia.com/gpu")  # fmt: skip
        elif kind == "docker" and name not in _DOCKER_RESOURCES:
            faults.add((*place, "resources", name), f"docker cannot give {name}", key=True, code="combination",
                       allowed="cpu and memory here; gpus: for GPUs")  # fmt: skip
    allowed = _MOUNTS[kind]
    for index, mount in enumerate(profile.get("mounts") or []):
        if len([key for key in mount if key in _MOUNTS["kubernetes"]]) != 1 or not set(mount) & set(allowed):
            faults.add((*place, "mounts", index), "a mount has one source", allowed=f"one of {listing(allowed)}",
                       code="combination")  # fmt: skip
    source = "secret" if kind == "kubernetes" else "env"
    for name, secret in (profile.get("secrets") or {}).items():
        if not secret.get(source) or (set(secret) & {"secret", "env"}) != {source}:
            example = "{secret: NAME, key: KEY}" if kind == "kubernetes" else "{env: VARIABLE OF THE WORKER}"
            faults.add((*place, "secrets", name), f"this is no secret of on: {kind}", allowed=example,
                       code="combination")  # fmt: skip


def _check_image(kind: str, profile: Mapping[str, Any], place: Path, faults: Faults) -> None:
    if not profile.get("image"):
        faults.add(place, f"on: {kind} needs an image", allowed="image: NAME:TAG", code="missing-key")
    elif kind == "kubernetes" and profile["image"] == BUILD:
        faults.add((*place, "image"), "a cluster pulls its images: it makes none", code="combination",
                   allowed="an image that was pushed before, such as registry.example/team/train:1")  # fmt: skip
    if profile.get("build") and profile.get("image") != BUILD:
        faults.add((*place, "build"), "build: goes with image: build", allowed="image: build, or no build:",
                   code="combination", key=True)  # fmt: skip


def _check_foreign(profile: Mapping[str, Any], place: Path, faults: Faults) -> None:
    if bool(profile.get("foreign")) != bool(profile.get("runner")):
        faults.add(place, "foreign: true and runner: go together", code="combination",
                   allowed="runner: an image of ours, such as edgewright/step-cpu:0.1.0")  # fmt: skip
    if profile.get("foreign") and profile.get("nodes", 1) > 1:
        faults.add((*place, "nodes"), "somebody else's image runs on one node", code="combination", key=True,
                   allowed="an image of ours, or no nodes:")  # fmt: skip


def _check_pod(pod: Any, place: Path, faults: Faults) -> None:
    """Note what is no part of a pod; what stands in the parts is held against Kubernetes by ``edgewright check``."""
    if not isinstance(pod, dict):
        return
    for key, value in pod.items():
        if key not in POD_KEYS:
            faults.unknown_key((*place, key), POD_KEYS)
        elif isinstance(value, dict) != (key in ("metadata", "spec")):
            allowed = "a mapping" if key in ("metadata", "spec") else "text"
            faults.add((*place, key), f"must be {allowed}", code="type")


def profile_of(name: str | None, *sources: Mapping[str, Any]) -> Profile:
    """Return a profile by name from the first source that has it; ``None`` and ``local`` are this process.

    Args:
        name: Name of the profile.
        sources: Profiles by name: those of the document before those of the installation.

    Raises:
        ConfigError: nobody has it, or it is not valid.
    """
    if name in (None, "local"):
        return LOCAL
    for source in sources:
        if name in source:
            faults = Faults("profiles")
            _check_profile(source[name], (str(name),), faults)
            if faults.found:
                raise ConfigError("; ".join(str(fault).split(": ", 1)[-1] for fault in faults.found), where="profiles")
            return Profile.model_validate(source[name])
    known = sorted({"local", *(str(key) for source in sources for key in source)})
    hint = f"there are: {', '.join(known)}; an installation's own are in its installation.yaml"
    raise ConfigError(f"there is no profile {name}", where="profile", hint=hint)
