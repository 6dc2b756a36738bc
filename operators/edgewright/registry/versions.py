"""What the registry holds, as plain values."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

#: Tag of a version: digest of its release.
DIGEST = "digest"
#: Tag of a version: how new the data are that made it (ISO time).
DATA_TIME = "data_time"
#: Tag of a version that was rolled back: when and by whom; publishing the same models does not promote it again.
ROLLED_BACK = "rolled_back"
#: Begins the tag of a variant that was added later, ``added.<target>``: sha256 of what describes it.
ADDED = "added."
#: Tag of a version: how many nodes run it; and the beginning of a node's tag, ``node.<name>``.
NODES = "nodes"
NODE = "node."


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of a registered model.

    Attributes:
        name: Registered model.
        version: Its number, as text.
        digest: Digest of the release; empty where somebody else registered it.
        aliases: Aliases that point to it, sorted.
        tags: Tags: ``digest``, ``targets``, ``metric.<name>``, ``data_time``, lineage, and the user's own.
        run_id: MLflow run that trained it; empty where it is not known.
        created: ISO time.
        source: MLflow's address of the release folder.
        uri: MLflow's name of the version, ``models:/<name>/<version>``.
    """

    name: str
    version: str
    digest: str = ""
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    run_id: str = ""
    created: str = ""
    source: str = ""

    @property
    def uri(self) -> str:
        """MLflow's name of the version."""
        return f"models:/{self.name}/{self.version}"

    @property
    def added(self) -> dict[str, str]:
        """Variants that were added after it was registered: target -> sha256 of what describes the addition."""
        return {name.removeprefix(ADDED): value for name, value in self.tags.items() if name.startswith(ADDED)}


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model.

    Attributes:
        name: Its name.
        versions: Numbers of its versions, the newest first.
        aliases: Alias -> version.
    """

    name: str
    versions: tuple[str, ...]
    aliases: dict[str, str]


def registered_version(found: Any, aliases: dict[str, str] | None = None) -> RegisteredVersion:
    """Return MLflow's ``ModelVersion`` as ours.

    Args:
        found: MLflow's entity.
        aliases: Alias -> version of the model; a search of MLflow's leaves a version's aliases out.
    """
    version = str(found.version)
    if aliases is None:
        own = [str(alias) for alias in found.aliases or ()]
    else:
        own = [alias for alias, target in aliases.items() if str(target) == version]
    tags = {str(key): str(value) for key, value in (found.tags or {}).items()}
    created = datetime.datetime.fromtimestamp((found.creation_timestamp or 0) / 1000, datetime.UTC)
    return RegisteredVersion(
        name=str(found.name),
        version=version,
        digest=tags.get(DIGEST, ""),
        aliases=tuple(sorted(own)),
        tags=tags,
        run_id=str(found.run_id or ""),
        created=created.isoformat(timespec="milliseconds"),
        source=str(found.source or ""),
    )
