"""Rows that earlier runs read, so that a run reads only what is new: kept below ``increments/`` in the artifact store.

Each run that finds new rows adds one increment: files under names of their own, then a numbered document. Of two runs
that read at the same time one writes the number; the other forgets what it read and takes the first one's rows. The
dataset of a run is all increments up to its own, so a run that fails later has lost nothing and nothing is there twice.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from edgewright.artifacts.digest import digest_json
from edgewright.errors import DamagedArtifact
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.steps.context import StepContext
from edgewright.steps.row_segments import Segment
from edgewright.steps.row_sources import Gathered
from edgewright.steps.row_values import decode_value, encode_value

#: Root of all increments in the store.
PREFIX = "increments"
#: What changes which rows are read or how they are kept; another value begins anew.
_DECIDING = ("source", "sql", "columns", "personal")


class Increments:
    """The increments of one task.

    Args:
        config: The step's configuration.
        context: The step.
    """

    def __init__(self, config: IngestConfig, context: StepContext) -> None:
        identity = context.request.identity
        task = identity.key.rpartition("/")[2]
        digest = digest_json(config.model_dump(mode="json", include=set(_DECIDING)))[:16]
        self._context, self._store = context, context.store
        self.place = f"{PREFIX}/{identity.dag_id}/{task}/{digest}"
        self._known = self._read()

    def _read(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while (document := self._store.read_json(self._key(len(found)))) is not None:
            found.append(document)
        return found

    def _key(self, number: int) -> str:
        return f"{self.place}/{number:06}.json"

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._known)

    @property
    def highest(self) -> Any:
        """The watermark up to which rows were read; ``None`` before the first time."""
        return decode_value(self._known[-1]["highest"]) if self._known else None

    def add(self, rows: Gathered, highest: Any) -> bool:
        """Add the rows of a run.

        Returns:
            Whether they were added; ``False`` where another run was faster, whose rows are then known here.
        """
        number, name = len(self._known), uuid.uuid4().hex[:12]
        keys = [f"{self.place}/{number:06}-{name}-{place}.parquet" for place in range(len(rows.segments))]
        for key, segment in zip(keys, rows.segments, strict=True):
            self._store.put_file(key, segment.path)
        document = {"files": keys, "names": rows.names, "highest": encode_value(highest)}
        if self._store.create_json(self._key(number), document):
            self._known.append(document)
            return True
        for key in keys:
            self._store.delete(key)
        self._known = self._read()
        return False

    def rows(self) -> Gathered:
        """Return all rows.

        Raises:
            DamagedArtifact: a file is missing.
        """
        gathered = Gathered()
        folder: Path = self._context.scratch
        for document in self._known:
            segments = []
            for key in document["files"]:
                path = self._store.get_file(key, folder)
                if path is None:
                    hint = f"remove {self.place} from the store: the next run then reads everything"
                    raise DamagedArtifact("rows of an earlier run are missing", where=key, hint=hint)
                segments.append(Segment(path))
            gathered.add(segments, document["names"])
        return gathered
