"""Where the user's code comes from: the pipeline's folder, and its git commit if it has one."""

from __future__ import annotations

from edgewright.spec.pipeline import Pipeline
from edgewright.steps.contract import Source
from edgewright.steps.revision import revision_of


def source_of(pipeline: Pipeline) -> Source:
    """Return the code that belongs to a run; git is asked once and may be missing."""
    folder = pipeline.folder.resolve()
    commit, dirty = revision_of(folder)
    return Source(
        folder=str(folder),
        document=pipeline.file.name,
        pipeline_digest=pipeline.digest,
        commit=commit,
        dirty=dirty,
    )
