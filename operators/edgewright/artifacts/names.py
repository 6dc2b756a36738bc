"""Names of files that somebody else chose."""

from __future__ import annotations

from pathlib import PurePosixPath

from edgewright.errors import DamagedArtifact


def check_name(name: str, where: str) -> str:
    """Return a file's name if it stays inside the release.

    Raises:
        DamagedArtifact: it is absolute, leads upwards, or is no plain POSIX path.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or path.as_posix() != name:
        raise DamagedArtifact(f"the manifest names a file outside of the release: {name!r}", where=where)
    return name
