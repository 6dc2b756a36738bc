"""``validate``: keep the rows that are right, put the others aside with the reason, pass or fail by a threshold."""

from __future__ import annotations

import collections
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from edgewright.artifacts import ArtifactRef
from edgewright.errors import DataError, GateResult
from edgewright.spec.steps.validate import ValidateConfig
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import Dataset, DatasetWriter, reference_meta
from edgewright.steps.hashes import HashSet, row_hashes
from edgewright.steps.rules import ColumnChecks
from edgewright.steps.schemas import UserSchema
from edgewright.steps.validation_report import write_report

_PART, _ROW, _REASON = "_part", "_row", "_reason"


@dataclass
class Found:
    """What the checks found.

    Attributes:
        rows: Rows looked at.
        rejected: Rows put aside.
        reasons: How often each reason occurred.
        examples: One row for each reason: part, row number, and the value's text.
        parts: Rows kept and rejected by part.
    """

    rows: int = 0
    rejected: int = 0
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    examples: dict[str, str] = field(default_factory=dict)
    parts: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the rows that were put aside."""
        return self.rejected / self.rows if self.rows else 0.0

    def summary(self, most: int = 5) -> str:
        """Return the most frequent reasons with counts and an example each."""
        lines = [
            f"{count:,} x {reason} (such as {self.examples[reason]})"
            for reason, count in self.reasons.most_common(most)
        ]
        more = len(self.reasons) - most
        return "; ".join(lines) + (f"; and {more} more reasons" if more > 0 else "")


def run(config: ValidateConfig, context: StepContext) -> StepOutput:
    """Check every part of the dataset.

    Raises:
        ConfigError: a rule cannot be applied to its column.
        DataError: a column is missing or of another type, or rows leak between parts.
        UserCodeError: the schema cannot be loaded or raises.
    """
    dataset = Dataset.open(context.fetch(config.data))
    names = [column["name"] for column in dataset.columns]
    checkers: list[ColumnChecks | UserSchema] = [ColumnChecks(config, dataset)]
    if config.schema_:
        checkers.append(UserSchema(config.schema_, context.source_folder, names))
    if config.leakage:
        refuse_leaks(dataset)
    found = Found()
    clean = DatasetWriter(context.folder("clean"), _types(dataset), dataset.label, dataset.manifest["source"])
    quarantine = _Quarantine(context.folder("quarantine"), dataset)
    for part in dataset.part_names:
        _check_part(part, dataset, checkers, clean, quarantine, found, context)
    manifest = clean.close(dataset.transforms)
    outputs = _outputs(config, context, found, clean.folder, manifest, quarantine)
    return StepOutput(
        outputs=outputs,
        gates=_judge(config, found, manifest, dataset),
        metrics={"rows": found.rows, "rejected": found.rejected, "rejected_share": round(found.share, 6)},
        notes=[f"{found.rows - found.rejected:,} of {found.rows:,} rows are right" + _aside_note(found)],
    )


def _types(dataset: Dataset) -> list[tuple[str, str]]:
    return [(column["name"], column["type"]) for column in dataset.columns]


def _aside_note(found: Found) -> str:
    return f"; {found.rejected:,} were put aside: {found.summary(3)}" if found.rejected else ""


def _outputs(
    config: ValidateConfig,
    context: StepContext,
    found: Found,
    clean: Path,
    manifest: dict[str, Any],
    quarantine: _Quarantine,
) -> dict[str, ArtifactRef]:
    outputs: dict[str, ArtifactRef] = {}
    aside = quarantine.close()
    if found.rejected:
        outputs["dataset"] = context.put(clean, "dataset", reference_meta(manifest))
        outputs["quarantine"] = context.put(quarantine.folder, "dataset", reference_meta(aside))
    else:
        # The same rows are the same dataset: what was made from it before need not be made again.
        outputs["dataset"] = config.data
    report = context.folder("report")
    write_report(report, {
        "rows": found.rows, "rejected": found.rejected, "rejected_share": found.share, "parts": found.parts,
        "reasons": [{"reason": r, "count": c, "example": found.examples[r]} for r, c in found.reasons.most_common()],
        "columns": manifest["columns"], "missing": manifest["missing"], "classes": manifest.get("classes", {}),
    })  # fmt: skip
    outputs["report"] = context.put(
        report, "report", {"page": "report.html", "rows": found.rows, "rejected": found.rejected}
    )
    return outputs


def _judge(config: ValidateConfig, found: Found, manifest: dict[str, Any], dataset: Dataset) -> list[GateResult]:
    """Return the verdicts; as gates, so that report and quarantine are kept when one of them fails the task."""
    share = round(found.share, 6)
    note = f"{found.rejected:,} of {found.rows:,} rows: {found.summary()}" if found.rejected else ""
    passed = found.share <= config.max_rejected and found.rejected < found.rows
    verdicts = [GateResult("rejected_share", "<=", config.max_rejected, share, passed, note)]
    if config.min_class_share and dataset.manifest.get("classes"):
        left = manifest.get("classes", {})
        classes = {name: left.get(name, 0) for name in dataset.manifest["classes"]}
        rarest = min(classes, key=classes.__getitem__)
        share = classes[rarest] / max(sum(classes.values()), 1)
        note = f"class {rarest}: {classes[rarest]:,} rows"
        enough = share >= config.min_class_share
        verdicts.append(GateResult("class_share", ">=", config.min_class_share, round(share, 6), enough, note))
    return verdicts


def _check_part(
    part: str,
    dataset: Dataset,
    checkers: list[ColumnChecks | UserSchema],
    clean: DatasetWriter,
    quarantine: _Quarantine,
    found: Found,
    context: StepContext,
) -> None:
    counts = found.parts.setdefault(part, {"kept": 0, "rejected": 0})
    start = 0
    for batch in dataset.batches(part):
        frame = dataset.to_pandas(batch)
        reasons: dict[int, dict[str, None]] = {}
        for checker in checkers:
            for row, reason in checker.reasons(frame, batch):
                reasons.setdefault(row, {})[reason] = None
        _count(reasons, batch, part, start, found)
        kept = batch
        if reasons:
            wrong = np.zeros(batch.num_rows, dtype=bool)
            wrong[list(reasons)] = True
            quarantine.write(batch.filter(pa.array(wrong)), part, start, reasons)
            kept = batch.filter(pa.array(~wrong))
        clean.write(part, kept)
        counts["kept"] += kept.num_rows
        counts["rejected"] += len(reasons)
        start += batch.num_rows
        context.progress(f"checked {part}", start, dataset.rows(part), "rows")


def _count(reasons: dict[int, dict[str, None]], batch: pa.RecordBatch, part: str, start: int, found: Found) -> None:
    found.rows += batch.num_rows
    found.rejected += len(reasons)
    for row, texts in reasons.items():
        for text in texts:
            found.reasons[text] += 1
            if text not in found.examples:
                name = text.split(":", 1)[0]
                value = batch.column(name)[row].as_py() if name in batch.schema.names else None
                found.examples[text] = f"row {start + row + 1} of {part}" + ("" if value is None else f": {value!r}")


class _Quarantine:
    """Rejected rows with where they stood and why."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self.folder = folder
        columns = [column for column in _types(dataset) if column[0] not in (_PART, _ROW, _REASON)]
        self._names = [name for name, _ in columns]
        extra = [(_PART, "string"), (_ROW, "integer"), (_REASON, "string")]
        self._writer = DatasetWriter(folder, [*columns, *extra], None, dataset.manifest["source"])

    def write(self, batch: pa.RecordBatch, part: str, start: int, reasons: dict[int, dict[str, None]]) -> None:
        """Add rows of a part, in order."""
        rows = sorted(reasons)
        columns = [
            *(batch.column(name) for name in self._names),
            pa.array([part] * len(rows)),
            pa.array([start + row + 1 for row in rows], pa.int64()),
            pa.array(["; ".join(reasons[row]) for row in rows]),
        ]
        self._writer.write("train", pa.RecordBatch.from_arrays(columns, schema=self._writer.schema))

    def close(self) -> dict[str, Any]:
        """Finish, and return the manifest."""
        return self._writer.close()


def refuse_leaks(dataset: Dataset) -> None:
    """Refuse rows that stand in two parts; remembers 8 bytes a row of all parts but the largest.

    Raises:
        DataError: with an example.
    """
    known: dict[str, HashSet] = {}
    *small, largest = sorted(dataset.part_names, key=dataset.rows)
    for part in (*small, largest):
        mine = HashSet()
        row = 0
        for batch in dataset.batches(part):
            hashes = row_hashes(batch)
            for other, others in known.items():
                both = others.contains(hashes)
                if both.any():
                    raise _leak(part, other, batch, both, row)
            if part != largest:
                mine.add(hashes)
            row += batch.num_rows
        known[part] = mine


def _leak(part: str, other: str, batch: pa.RecordBatch, both: Any, before: int) -> DataError:
    first = int(both.argmax())
    example = json.dumps(batch.slice(first, 1).to_pylist()[0], default=str, ensure_ascii=False)
    return DataError(
        f"{int(both.sum())} or more rows of {part} stand in {other} too (leakage), such as row {before + first + 1}: "
        f"{example}",
        hint="a model must be measured on rows that it has not seen; or say leakage: false",
    )
