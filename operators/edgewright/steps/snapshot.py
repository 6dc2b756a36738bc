"""The user's code on its way to another machine: a snapshot in the artifact store, named by its digest."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from edgewright.artifacts import ArtifactRef, ArtifactStore
from edgewright.artifacts.digest import list_files
from edgewright.errors import ConfigError
from edgewright.steps.contract import StepRequest

#: Most bytes of a pipeline's folder that travel; data belong into a store or a volume.
LIMIT = 256 << 20


def take(folder: Path, store: ArtifactStore) -> ArtifactRef:
    """Keep a pipeline's folder in the store, without hidden files; the same code is kept once.

    Raises:
        ConfigError: the folder is too large to travel.
    """
    names = [name for name in list_files(folder) if not any(part.startswith(".") for part in name.split("/"))]
    size = sum((folder / name).stat().st_size for name in names)
    if size > LIMIT:
        raise ConfigError(f"the pipeline's folder has {size >> 20} MiB, and at most {LIMIT >> 20} travel to another "
                          "machine", where=str(folder), hint="put the data into a bucket or onto a volume")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="edgewright-code-") as place:
        for name in names:
            target = Path(place, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target)
        return store.put(Path(place), "code")


def unpacked(request: StepRequest) -> StepRequest:
    """Return a request whose code is a folder of this machine, fetched and verified where it travelled.

    The reference stays in it: the request's document in the store is what keeps the snapshot from the collector.
    """
    if request.source is None or request.source.code is None:
        return request
    folder = ArtifactStore(request.store).fetch(request.source.code)
    source = request.source.model_copy(update={"folder": str(folder)})
    return request.model_copy(update={"source": source})
