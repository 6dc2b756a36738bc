"""The git commit of a pipeline's folder: asked of git, or as a Dag bundle noted it when it copied the folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

#: Written by the Dag bundle beside its copies, which are no repositories themselves.
NOTE = ".edgewright-revision.json"


def git_state(folder: str) -> tuple[str | None, bool | None]:
    """Return ``(commit, dirty)`` of a folder; ``(None, None)`` without git, a repository or an answer in time.

    Untracked files count as dirty: code that was never committed cannot be found again by the commit.
    """
    call = ["git", "-C", folder, "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--", "."]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    if done.returncode:
        return None, None
    commit = next((line.split()[2] for line in done.stdout.splitlines() if line.startswith("# branch.oid ")), None)
    if commit in (None, "(initial)"):
        return None, None
    return commit, any(not line.startswith("#") for line in done.stdout.splitlines())


def revision_of(folder: Path) -> tuple[str | None, bool | None]:
    """Return ``(commit, dirty)`` of a folder, or of the folder that a Dag bundle copied it from.

    Git is a process of its own, so it is started only where a repository is.
    """
    for parent in (folder, *folder.parents):
        if (parent / NOTE).is_file():
            document = json.loads((parent / NOTE).read_text())
            return document.get("commit"), document.get("dirty")
        if (parent / ".git").exists():
            return git_state(str(folder))
    return None, None
