"""``validate``: keep the rows that are right, put the others aside with the reason, pass or fail by a threshold."""

from __future__ import annotations

import collections
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from edgewright.artifacts import ArtifactRef
from edgewright.errors import DataError, GateResult
from edgewright.spec.steps.validate import ValidateConfig
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import Dataset, DatasetWriter, reference_meta
from edgewright.steps.hashes import row_hashes
from edgewright.steps.rules import ColumnChecks
from edgewright.steps.schemas import UserSchema
from edgewright.steps.validation_report import write_report

if TYPE_CHECKING:
    import pandas as pd

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
        DataError: a column is missing or of another type, or rows leak between parts.
        UserCodeError: the schema cannot be loaded or raises.
    """
    dataset = Dataset.open(context.fetch(config.data))
    if config.leakage:
        _check_leakage(dataset)
    columns = [(column["name"], column["type"]) for column in dataset.columns]
    checks = ColumnChecks(config, dict(columns))
    schema = UserSchema(config.schema_, context) if config.schema_ else None
    found = Found()
    clean, aside = context.folder("clean"), context.folder("quarantine")
    writer = DatasetWriter(clean, columns, dataset.label, dataset.manifest["source"])
    quarantine = _Quarantine(aside, columns, dataset)
    for part in dataset.part_names:
        _check_part(part, dataset, checks, schema, writer, quarantine, found, context)
    manifest = writer.close(dataset.transforms)
    outputs = _outputs(context, found, clean, manifest, quarantine)
    return StepOutput(
        outputs=outputs,
        gates=_judge(config, found, manifest),
        metrics={"rows": found.rows, "rejected": found.rejected, "rejected_share": round(found.share, 6)},
        notes=[f"{found.rows - found.rejected:,} of {found.rows:,} rows are right" + _aside_note(found)],
    )


def _aside_note(found: Found) -> str:
    return f"; {found.rejected:,} were put aside: {found.summary(3)}" if found.rejected else ""


def _outputs(
    context: StepContext, found: Found, clean: Path, manifest: dict[str, Any], quarantine: _Quarantine
) -> dict[str, ArtifactRef]:
    outputs = {"dataset": context.put(clean, "dataset", reference_meta(manifest))}
    if found.rejected:
        outputs["quarantine"] = context.put(quarantine.folder, "dataset", {"rows": quarantine.close()["rows"]})
    report = context.folder("report")
    write_report(report, {
        "rows": found.rows, "rejected": found.rejected, "rejected_share": found.share, "parts": found.parts,
        "reasons": [{"reason": r, "count": c, "example": found.examples[r]} for r, c in found.reasons.most_common()],
        "columns": manifest["columns"], "missing": manifest["missing"], "classes": manifest.get("classes", {}),
    })  # fmt: skip
    outputs["report"] = context.put(report, "report")
    return outputs


def _judge(config: ValidateConfig, found: Found, manifest: dict[str, Any]) -> list[GateResult]:
    """Return the verdicts; as gates, so that report and quarantine are kept when one of them fails the task."""
    passed = found.share <= config.max_rejected
    note = f"{found.rejected:,} of {found.rows:,} rows: {found.summary()}" if found.rejected else ""
    verdicts = [GateResult("rejected_share", "<=", config.max_rejected, round(found.share, 6), passed, note)]
    classes = manifest.get("classes", {})
    if config.min_class_share and classes:
        rarest = min(classes, key=classes.__getitem__)
        share = classes[rarest] / sum(classes.values())
        note = f"class {rarest}: {classes[rarest]} rows"
        enough = share >= config.min_class_share
        verdicts.append(GateResult("class_share", ">=", config.min_class_share, round(share, 6), enough, note))
    return verdicts


def _check_part(
    part: str,
    dataset: Dataset,
    checks: ColumnChecks,
    schema: UserSchema | None,
    writer: DatasetWriter,
    quarantine: _Quarantine,
    found: Found,
    context: StepContext,
) -> None:
    counts = found.parts.setdefault(part, {"kept": 0, "rejected": 0})
    start = 0
    for batch in dataset.batches(part):
        frame = batch.to_pandas()
        reasons = checks.reasons(frame, part)
        for row, reason in schema.reasons(frame) if schema else ():
            reasons.setdefault(row, []).append(reason)
        _count(reasons, frame, part, start, found)
        wrong = pa.array([row in reasons for row in range(batch.num_rows)]) if reasons else None
        if wrong is not None:
            quarantine.write(batch.filter(wrong), part, start, reasons)
            batch = batch.filter(pa.compute.invert(wrong))
        writer.write(part, batch)
        counts["kept"] += batch.num_rows
        counts["rejected"] += len(reasons)
        start += len(frame)
        context.progress(f"checked {part}", start, dataset.rows(part), "rows")


def _count(reasons: dict[int, list[str]], frame: pd.DataFrame, part: str, start: int, found: Found) -> None:
    found.rows += len(frame)
    found.rejected += len(reasons)
    for row, texts in reasons.items():
        for text in texts:
            found.reasons[text] += 1
            if text not in found.examples:
                name = text.split(":", 1)[0]
                value = f" = {frame[name].iloc[row]!r}" if name in frame.columns else ""
                found.examples[text] = f"row {start + row + 1} of {part}{value}"


class _Quarantine:
    """Rejected rows with where they stood and why."""

    def __init__(self, folder: Path, columns: list[tuple[str, str]], dataset: Dataset) -> None:
        self.folder = folder
        extra = [(_PART, "string"), (_ROW, "integer"), (_REASON, "string")]
        self._writer = DatasetWriter(folder, [*columns, *extra], None, dataset.manifest["source"])

    def write(self, batch: pa.RecordBatch, part: str, start: int, reasons: dict[int, list[str]]) -> None:
        rows = sorted(reasons)
        columns = [
            *batch.columns,
            pa.array([part] * len(rows)),
            pa.array([start + row + 1 for row in rows], pa.int64()),
            pa.array(["; ".join(reasons[row]) for row in rows]),
        ]
        self._writer.write("train", pa.RecordBatch.from_arrays(columns, schema=self._writer.schema))

    def close(self) -> dict[str, Any]:
        return self._writer.close()


def _check_leakage(dataset: Dataset) -> None:
    """Refuse rows that stand in two parts; remembers 8 bytes a row of all parts but the largest."""
    import numpy as np

    by_size = sorted(dataset.part_names, key=dataset.rows)
    known: dict[str, Any] = {}
    for part in by_size:
        hashes = [row_hashes(batch) for batch in dataset.batches(part)]
        mine = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
        for other, others in known.items():
            both = np.isin(mine, others)
            if both.any():
                row = int(both.argmax())
                example = json.dumps(dataset.table(part).slice(row, 1).to_pylist()[0], default=str)
                raise DataError(
                    f"{int(both.sum())} rows of {part} stand in {other} too (leakage), such as row {row + 1}: "
                    f"{example}",
                    hint="a model must be measured on rows that it has not seen; or say leakage: false",
                )
        known[part] = mine
