"""``transform``: a function or a query from dataset to dataset, with state that is fitted on ``train`` only."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgewright.artifacts import ArtifactRef
from edgewright.errors import UserCodeError
from edgewright.spec.steps.spark import SparkConfig
from edgewright.spec.steps.transform import TransformConfig
from edgewright.steps.arguments import check_shares
from edgewright.steps.code import load_entry, user_code
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepOutput
from edgewright.steps.data import Dataset, DatasetWriter, reference_meta
from edgewright.steps.fitted import SklearnTransform, is_sklearn, libraries_of, write_state
from edgewright.steps.frames import CollectedRows, rows_of
from edgewright.steps.hashes import HashSet, row_hashes


@dataclass
class _Applied:
    """What was done to the rows.

    Attributes:
        entry: The function that made them, for messages.
        record: What the new dataset's manifest says about it.
        state: The fitted state; ``None`` where nothing was fitted.
        kind: ``sklearn`` where the state is a transformer that was applied here.
    """

    entry: str
    record: dict[str, Any]
    state: Any = None
    kind: str | None = None
    notes: list[str] = field(default_factory=list)


def run(config: TransformConfig, context: StepContext) -> StepOutput:
    """Apply the user's function to every part.

    Raises:
        ConfigError: the arguments do not fit the function.
        UserCodeError: the function failed, or returned something that is no dataset.
    """
    dataset = Dataset.open(context.fetch(config.data))
    integers = {c["name"] for c in dataset.columns if c["type"] == "integer"} & set(dataset.manifest["missing"])
    rows = CollectedRows(context.folder("collected"), dataset.label, integers)
    with _user_code(config, context):
        applied = _applied(config, context, dataset, rows)
        columns = rows.columns(applied.entry)
        _check_rows(dataset, rows, applied)
        outputs: dict[str, ArtifactRef] = {}
        _describe(applied, dataset, columns)
        if config.fit:
            outputs["state"] = _keep_state(config, context, applied)
    manifest, notes = _write(context, dataset, rows, columns, applied)
    outputs = {"dataset": context.put(context.scratch / "dataset", "dataset", reference_meta(manifest)), **outputs}
    metrics = {"rows": float(manifest["rows"]), "columns": float(len(columns))}
    return StepOutput(outputs=outputs, metrics=metrics, notes=notes)


def _user_code(config: TransformConfig, context: StepContext) -> contextlib.AbstractContextManager[Any]:
    if config.sql or config.spark:
        return contextlib.nullcontext()
    return user_code(context.source_folder, config.fit or config.entry or "")


def _applied(config: TransformConfig, context: StepContext, dataset: Dataset, rows: CollectedRows) -> _Applied:
    if config.spark:
        return _on_spark(config, config.spark, context, dataset, rows)
    if config.sql:
        from edgewright.steps.transform_sql import NAME, apply_sql

        apply_sql(config.sql, config.args, context, dataset, rows)
        return _Applied(NAME, {"kind": "sql", "entry": NAME, "sql": config.sql, "args": config.args})
    return _fitted(config, context, dataset, rows) if config.fit else _stateless(config, context, dataset, rows)


def _on_spark(
    config: TransformConfig, spark: SparkConfig, context: StepContext, dataset: Dataset, rows: CollectedRows
) -> _Applied:
    from edgewright.steps.spark import apply_spark

    state, version = apply_spark(config, spark, context, dataset, rows)
    name = config.entry or "sql"
    record: dict[str, Any] = {"kind": "sql" if config.sql else "function", "engine": f"spark {version}", "entry": name}
    record |= {"sql": config.sql, "args": config.args} if config.sql else {}
    record |= {"fit": config.fit} if config.fit else {}
    return _Applied(name, record, state)


# -- calling the user's functions ------------------------------------------------------------------------------------


def _stateless(config: TransformConfig, context: StepContext, dataset: Dataset, rows: CollectedRows) -> _Applied:
    entry = config.entry or ""
    function = load_entry(context.source_folder, entry)
    args = check_shares([function], [1], config.args, context.source_folder)[0]
    for part in dataset.part_names:
        done = 0
        for piece in dataset.batches(part) if config.frame == "arrow" else (dataset.frame(part),):
            found = _call(context, entry, function, piece, **args)
            rows.add(part, rows_of(found, entry), entry)
            done += len(piece)
            context.progress(f"transform {part}", done, dataset.rows(part), "rows")
    return _Applied(entry, {"kind": "function", "entry": entry})


def _fitted(config: TransformConfig, context: StepContext, dataset: Dataset, rows: CollectedRows) -> _Applied:
    fit = load_entry(context.source_folder, config.fit or "")
    entry = load_entry(context.source_folder, config.entry) if config.entry else None
    functions, skipped = ([fit, entry], [1, 2]) if entry else ([fit], [1])
    args = check_shares(functions, skipped, config.args, context.source_folder)
    state = _call(context, config.fit or "", fit, dataset.frame("train"), **args[0])
    if state is None:
        raise UserCodeError(f"{config.fit} returned nothing", hint="return what it found: a transformer, a dict, ...")
    apply: Callable[[Any], Any]
    if entry is not None:
        name, kind = config.entry or "", None
        record: dict[str, Any] = {"kind": "function", "entry": name, "fit": config.fit}

        def apply(frame: Any) -> Any:
            return _call(context, name, entry, frame, state, **args[1])
    elif is_sklearn(state):
        name, kind = config.fit or "", "sklearn"
        transform = SklearnTransform.of(state, dataset.features, dataset.label, name)
        record = {"kind": "sklearn", "inputs": _entries(dataset, transform.inputs)}
        record |= {"passthrough": transform.passthrough, "data": _relative(config.data, context)}

        def apply(frame: Any) -> Any:
            return _call(context, name, transform.apply, frame, dataset.label)
    else:
        raise UserCodeError(
            f"{config.fit} returned a {type(state).__name__}, and there is no entry to apply it",
            hint="say entry: file.py:function (called as function(frame, state)), or return a fitted transformer",
        )
    for part in dataset.part_names:
        rows.add(part, rows_of(apply(dataset.frame(part)), name), name)
        context.progress(f"transform {part}", dataset.rows(part), dataset.rows(part), "rows")
    return _Applied(name, record, state, kind)


def _call(context: StepContext, entry: str, function: Callable[..., Any], *values: Any, **args: Any) -> Any:
    """Call a function of the user's with the same random numbers each time."""
    import numpy as np

    with user_code(context.source_folder, entry):
        random.seed(0)
        np.random.seed(0)
        return function(*values, **args)


# -- the new dataset -------------------------------------------------------------------------------------------------


def _entries(dataset: Dataset, names: list[str]) -> list[dict[str, Any]]:
    known = {column["name"]: column for column in dataset.columns}
    return [known[name] for name in names]


def _check_rows(dataset: Dataset, rows: CollectedRows, applied: _Applied) -> None:
    for part in dataset.part_names:
        before, after = dataset.rows(part), rows.rows(part)
        if after == 0:
            raise UserCodeError(f"{applied.entry} left no rows of {part}", hint=f"it was given {before:,}")
        if after != before:
            applied.notes.append(f"{part}: {before:,} rows became {after:,}")


def _describe(applied: _Applied, dataset: Dataset, columns: list[tuple[str, str]]) -> None:
    applied.record.setdefault("inputs", _entries(dataset, dataset.features))
    applied.record["outputs"] = [{"name": name, "type": kind} for name, kind in columns if name != dataset.label]


def _keep_state(config: TransformConfig, context: StepContext, applied: _Applied) -> ArtifactRef:
    folder = context.folder("state")
    facts = {key: value for key, value in applied.record.items() if key != "kind"}
    facts |= {"fit": config.fit, "args": config.args, "libraries": libraries_of(applied.kind)}
    write_state(folder, applied.state, facts, context.source_folder, applied.kind)
    ref = context.put(folder, "model", {"format": applied.kind or "state", "fit": config.fit})
    applied.record["state"] = _relative(ref, context)
    return ref


def _relative(ref: ArtifactRef, context: StepContext) -> dict[str, Any]:
    """Return a reference relative to the store: the same data give the same manifest wherever the store is."""
    place = ref.uri.removeprefix(context.store.root).lstrip("/")
    return {"kind": ref.kind, "uri": place, "sha256": ref.sha256, "size": ref.size}


def _write(
    context: StepContext, dataset: Dataset, rows: CollectedRows, columns: list[tuple[str, str]], applied: _Applied
) -> tuple[dict[str, Any], list[str]]:
    writer = DatasetWriter(context.folder("dataset"), columns, dataset.label, dataset.manifest["source"])
    known: dict[str, HashSet] = {}
    notes = [f"{applied.entry}: {len(dataset.columns)} columns became {len(columns)}", *applied.notes]
    for part in dataset.part_names:
        mine, shared = HashSet(), 0
        for batch in rows.batches(part, columns):
            hashes = row_hashes(batch)
            shared += sum(int(other.contains(hashes).sum()) for other in known.values())
            mine.add(hashes)
            writer.write(part, batch)
        known[part] = mine
        if shared:
            notes.append(f"{shared:,} rows of {part} now equal rows of another part: the columns left tell them apart")
    for note in notes:
        context.note(note)
    return writer.close([*dataset.transforms, applied.record]), notes
