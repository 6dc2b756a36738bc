"""``on: docker``: the step runs in a container that sees the store and the pipeline's folder where they are here."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgewright.artifacts import ArtifactStore
from edgewright.errors import ConfigError, SystemFault, Unavailable, UserFault
from edgewright.places import foreign
from edgewright.places.image_build import built
from edgewright.places.lines import relay
from edgewright.places.outcome import collect, find, forget
from edgewright.spec.profiles import BUILD, Build, Profile
from edgewright.steps.contract import StepRequest, StepResult

#: Bytes in one of each unit of Kubernetes' amounts.
_UNITS = {
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "": 1,
    "m": 0.001, "P": 10**15, "E": 10**18, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def amount(text: float | str) -> float:
    """Return an amount such as ``500m``, ``2`` or ``16Gi`` as a number."""
    digits = str(text).rstrip("kKMGTPEim")
    return float(digits) * _UNITS[str(text)[len(digits) :]]


class Container:
    """Answers a request by a container.

    Args:
        profile: One ``on: docker``.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._container: Any = None

    # -- what can be honoured ----------------------------------------------------------------------------------

    def refusal(self, request: StepRequest | None = None) -> str | None:
        """Return what cannot be honoured here, or ``None``."""
        try:
            with _engine() as engine:
                return self._refused_by(engine) or (self._unreachable(request) if request else None)
        except Unavailable as error:
            return str(error)

    def _refused_by(self, engine: Any) -> str | None:
        import docker.errors

        profile, image = self._profile, str(self._profile.image)
        info = engine.info()
        cores, memory = profile.resources.get("cpu"), profile.resources.get("memory")
        if cores is not None and amount(cores) > info["NCPU"]:
            return f"the engine has {info['NCPU']} cores, and the profile asks for {cores}"
        if memory is not None and amount(memory) > info["MemTotal"]:
            return f"the engine has {info['MemTotal'] / 2**30:.1f}Gi of memory, and the profile asks for {memory}"
        if profile.gpus is not None and not _has_gpus(info):
            return "the engine has no GPUs (no nvidia runtime and no CDI device)"
        missing = [secret.env for secret in profile.secrets.values() if secret.env not in os.environ]
        if missing:
            return f"the worker has no variable {', '.join(map(str, missing))} (secrets of the profile)"
        if profile.pull == "never" and image != BUILD:
            try:
                engine.images.get(image)
            except docker.errors.ImageNotFound:
                return f"the image {image} is not here, and pull: never"
        return None

    def _unreachable(self, request: StepRequest) -> str | None:
        """Say what the container could not reach: loopback addresses are its own."""
        if self._profile.network == "host":
            return None
        if urlsplit(request.tracking_uri).hostname in _LOOPBACK:
            return (f"MLflow at {request.tracking_uri} is this machine's own address; "
                    "network: host lets the container reach it")  # fmt: skip
        return None

    # -- running -----------------------------------------------------------------------------------------------

    def run(self, request: StepRequest, store: ArtifactStore) -> StepResult:
        """Answer a request; one that another worker left running is waited for.

        Raises:
            ConfigError: the profile cannot be honoured here.
            EdgewrightError: as the step raised it.
            SystemFault: the container ended without a result.
        """
        reason = self.refusal(request)
        if reason is not None:
            raise ConfigError(reason, where="profile")
        if self._profile.foreign:
            return self._run_foreign(request)
        with _engine() as engine:
            self._container = self._found(engine, request) or self._started(engine, request, store)
            try:
                for line in read_lines(self._container.logs(stream=True, follow=True)):
                    relay(line)
                self._container.wait()
                self._container.reload()
                ended = self._container.attrs["State"]
            finally:
                self.cancel()
        return self._collect(request, store, ended)

    def _run_foreign(self, request: StepRequest) -> StepResult:
        """Stage here, run the vendor's command over the folder, and collect here."""
        import tempfile

        from edgewright.steps.execute import execute
        from edgewright.steps.foreign import CODE, collecting, done_with, kept_checkpoints

        with _engine() as engine, tempfile.TemporaryDirectory(prefix="edgewright-foreign-") as place:
            folder = Path(place)
            foreign.stage(request, folder)
            if left := self._found(engine, request):
                left.remove(force=True)  # its folder went with its worker
            image = self._image(engine, request)
            options = {**self._options(request), **_foreign_options(request, folder, self._profile)}
            self._container = engine.containers.create(image.id, **options)
            self._container.start()
            try:
                with kept_checkpoints(request, folder):
                    for line in read_lines(self._container.logs(stream=True, follow=True)):
                        relay(line)
                code = int(self._container.wait()["StatusCode"])
                self._container.reload()
                if self._container.attrs["State"].get("OOMKilled"):
                    limit = self._profile.resources.get("memory", "the machine's memory")
                    raise UserFault(f"OOMKilled: the step needed more than {limit}", hint="raise resources.memory")
            finally:
                self.cancel()
            (folder / CODE).write_text(f"{code}\n")
            result = execute(collecting(request, folder))
            done_with(request)
            return result

    def _collect(self, request: StepRequest, store: ArtifactStore, ended: dict[str, Any]) -> StepResult:
        if ended.get("OOMKilled") and find(store, request) is None:
            limit = self._profile.resources.get("memory", "the machine's memory")
            raise UserFault(f"OOMKilled: the step needed more than {limit}", hint="raise resources.memory")
        return collect(store, request, f"the container ended with {ended.get('ExitCode')} {ended.get('Error') or ''}")

    def _found(self, engine: Any, request: StepRequest) -> Any:
        """Return a container of this very task that a worker left behind when it died, if it still runs."""
        import docker.errors

        try:
            container = engine.containers.get(container_name(request))
        except docker.errors.NotFound:
            return None
        if container.status in ("running", "created") and container.labels.get("edgewright.try") == str(
            request.identity.try_number
        ):
            return container
        with contextlib.suppress(docker.errors.NotFound):
            container.remove(force=True)
        return None

    def _started(self, engine: Any, request: StepRequest, store: ArtifactStore) -> Any:
        import docker.errors

        image = self._image(engine, request)
        digests = image.attrs.get("RepoDigests") or [image.id]
        asked = request.model_copy(update={"image": digests[0].rpartition("@")[2]})
        forget(store, request)
        try:
            self._container = engine.containers.create(image.id, **self._options(asked))
            self._container.put_archive("/", _archive("edgewright-request.json", asked.model_dump_json().encode()))
            self._container.start()
        except docker.errors.APIError as error:
            self.cancel()
            raise SystemFault(f"Docker: {error.explanation or error}") from error
        return self._container

    def _image(self, engine: Any, request: StepRequest) -> Any:
        import docker.errors

        image, pull = str(self._profile.image), self._profile.pull
        if image == BUILD:
            folder = Path(request.source.folder) if request.source else None
            return built(engine, self._profile.build or Build(), folder, fresh=pull == "always")
        try:
            return engine.images.pull(image) if pull == "always" else engine.images.get(image)
        except docker.errors.ImageNotFound:
            if pull != "missing":
                raise ConfigError(f"there is no image {image}", where="profile.image") from None
        try:
            return engine.images.pull(image)
        except docker.errors.APIError as error:
            raise ConfigError(f"the image {image} cannot be pulled: {error.explanation or error}",
                              where="profile.image") from error  # fmt: skip

    def _options(self, request: StepRequest) -> dict[str, Any]:
        import docker.types

        profile = self._profile
        secrets = {name: os.environ[str(secret.env)] for name, secret in profile.secrets.items()}
        options: dict[str, Any] = {
            "name": container_name(request),
            "command": ["python", "-m", "edgewright.steps", "/edgewright-request.json"],
            "entrypoint": [],
            # what the step writes into a mounted store belongs to whoever runs the worker
            "user": f"{os.getuid()}:{os.getgid()}",
            "environment": {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", **profile.env, **secrets},  # noqa: S108
            "labels": {"edgewright.dag": request.identity.dag_id, "edgewright.task": request.identity.task_id,
                       "edgewright.run": request.identity.run_id, "edgewright.try": str(request.identity.try_number)},
            "mounts": [docker.types.Mount(inside, outside, type="bind", read_only=read_only)
                       for inside, outside, read_only in self._mounts(request)],
            "network": profile.network,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
        }  # fmt: skip
        if "cpu" in profile.resources:
            options["nano_cpus"] = int(amount(profile.resources["cpu"]) * 1e9)
        if "memory" in profile.resources:
            options["mem_limit"] = options["memswap_limit"] = int(amount(profile.resources["memory"]))
        if profile.shm is not None:
            options["shm_size"] = int(amount(profile.shm))
        if profile.gpus is not None:
            count = -1 if profile.gpus == "all" else profile.gpus
            options["device_requests"] = [docker.types.DeviceRequest(count=count, capabilities=[["gpu"]])]
        return options

    def _mounts(self, request: StepRequest) -> Iterator[tuple[str, str, bool]]:
        """Yield what the container sees, each at the path that it has here."""
        for address in (request.store, request.tracking_uri):
            place = local_path(address)
            if place is not None:
                folder = place if address.startswith("file:") else place.parent
                folder.mkdir(parents=True, exist_ok=True)
                yield str(folder), str(folder), False
        if request.source is not None:
            yield request.source.folder, request.source.folder, True
        for mount in self._profile.mounts:
            yield mount.path, str(Path(str(mount.folder)).resolve()), mount.read_only

    def cancel(self) -> None:
        """Stop and remove the container; what it wrote into the store stays."""
        import docker.errors

        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(docker.errors.NotFound, docker.errors.APIError):
                container.remove(force=True)


def _foreign_options(request: StepRequest, folder: Path, profile: Profile) -> dict[str, Any]:
    """Return what differs for somebody else's image: its command, and one folder instead of the store."""
    import docker.types

    bind = functools.partial(docker.types.Mount, type="bind")
    mounts = [bind(mount.path, str(mount.folder), read_only=mount.read_only) for mount in profile.mounts]
    return {
        "command": foreign.command(request),
        "working_dir": f"{foreign.SHARED}/work",
        "environment": {"HOME": "/tmp", **profile.env, **foreign.environment(request)},  # noqa: S108
        "mounts": [bind(foreign.SHARED, str(folder)), *mounts],
    }


def container_name(request: StepRequest) -> str:
    """Return the name of the one container that answers a task of a run."""
    identity = request.identity
    digest = hashlib.sha256(f"{request.store}/{identity.key}".encode()).hexdigest()[:12]
    return f"edgewright-{''.join(c if c.isalnum() else '-' for c in identity.task_id)[:40]}-{digest}"


def local_path(address: str) -> Path | None:
    """Return where an address of this machine's file system leads, or ``None`` for one that is elsewhere."""
    for scheme in ("file://", "sqlite:///"):
        if address.startswith(scheme):
            return Path(address.removeprefix(scheme))
    return None


@contextlib.contextmanager
def _engine() -> Iterator[Any]:
    import docker
    import docker.errors

    try:
        engine = docker.from_env(timeout=60)
        engine.ping()
    except docker.errors.DockerException as error:
        raise Unavailable(f"no Docker engine answers: {error}", hint="start it, or set DOCKER_HOST") from error
    try:
        yield engine
    finally:
        engine.close()


def _has_gpus(info: dict[str, Any]) -> bool:
    return "nvidia" in (info.get("Runtimes") or {}) or bool(info.get("DiscoveredDevices"))


def _archive(name: str, data: bytes) -> bytes:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o444
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def read_lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield whole lines of a stream of bytes; one without an end is cut into pieces."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
        if len(rest) > 1 << 16:
            yield rest.decode(errors="replace")
            rest = b""
    if rest:
        yield rest.decode(errors="replace")
