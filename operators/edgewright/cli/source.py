"""Where the user's code comes from: the pipeline's folder, and its git commit if it has one."""

from __future__ import annotations

import subprocess

from edgewright.spec.pipeline import Pipeline
from edgewright.steps.contract import Source


def source_of(pipeline: Pipeline) -> Source:
    """Return the code that belongs to a run; git is asked once and may be missing."""
    folder = pipeline.folder.resolve()
    commit, dirty = git_state(str(folder))
    return Source(
        folder=str(folder),
        document=pipeline.file.name,
        pipeline_digest=pipeline.digest,
        commit=commit,
        dirty=dirty,
    )


def git_state(folder: str) -> tuple[str | None, bool | None]:
    """Return ``(commit, dirty)`` of a folder; ``(None, None)`` without git, a repository or an answer in time.

    Untracked files count as dirty: code that was never committed cannot be found again by the commit.
    """
    call = ["git", "-C", folder, "--no-optional-locks", "status", "--porcelain=v2", "--branch", "--", "."]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    if done.returncode:
        return None, None
    commit = next((line.split()[2] for line in done.stdout.splitlines() if line.startswith("# branch.oid ")), None)
    if commit in (None, "(initial)"):
        return None, None
    return commit, any(not line.startswith("#") for line in done.stdout.splitlines())
