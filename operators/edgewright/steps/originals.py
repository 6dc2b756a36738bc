"""Models take the columns as they come: what scikit-learn transformers did before training becomes part of the model.

A dataset that ``transform`` made says how (its manifest's ``transforms``) and from which dataset. If every one of its
transformations is a fitted scikit-learn transformer, ``train`` puts them in front of the estimator; then evaluation,
export and the prediction service all speak of the original columns, and the service needs no code of the user's.
A transformation by a plain function has no such form: its model takes the transformed columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.artifacts import ArtifactRef
from edgewright.steps.context import StepContext
from edgewright.steps.data import Dataset
from edgewright.steps.fitted import read_state


def original_of(dataset: Dataset, context: StepContext) -> Dataset | None:
    """Return the data before all transformations, row for row; ``None`` if there were none or a function made them."""
    records = dataset.transforms
    if not records or any(record["kind"] != "sklearn" or "data" not in record for record in records):
        return None
    original = Dataset.open(context.fetch(_reference(records[0]["data"], context)))
    same = all(part in original.part_names and original.rows(part) == dataset.rows(part) for part in dataset.part_names)
    return original if same else None


def with_columns(names: Sequence[str], dataset: Dataset, context: StepContext) -> Dataset:
    """Return the data that have a model's columns: the dataset itself, or what it was transformed from."""
    if set(names) <= set(dataset.features):
        return dataset
    original = original_of(dataset, context)
    return original if original is not None and set(names) <= set(original.features) else dataset


def _reference(entry: dict[str, Any], context: StepContext) -> ArtifactRef:
    return ArtifactRef.model_validate({**entry, "uri": f"{context.store.root}/{entry['uri']}"})


@dataclass
class _Branch:
    """Transformers, one after the other, from original columns to made ones."""

    transformers: list[Any]
    inputs: list[str]
    outputs: list[str]


def compose(estimator: Any, dataset: Dataset, original: Dataset, context: StepContext) -> Any | None:
    """Return the transformers of a dataset and an estimator as one fitted pipeline over the original columns.

    Args:
        estimator: Fitted on the dataset's features.
        dataset: What the transformers made.
        original: What they made it from.
        context: The step, for the fitted states.

    Returns:
        The pipeline; ``None`` where the estimator picks columns by name or takes a part of them only, or where a
        transformer takes some of the columns that another one made.
    """
    from sklearn.pipeline import Pipeline

    branches = None if _picks_columns(estimator, dataset) else _branches(dataset, original, context)
    if branches is None:
        return None
    made = [name for branch in branches for name in branch.outputs]
    rest = [name for name in dataset.features if name not in made]
    columns = _fitted_columns(branches, rest, original.X("train").head(50))
    _forget_names(estimator)
    return Pipeline([("transform", columns), ("model", estimator)])


def _branches(dataset: Dataset, original: Dataset, context: StepContext) -> list[_Branch] | None:
    """Return what was done to the columns, the latest first, as it stands in the dataset's columns."""
    raw = set(original.features)
    branches: list[_Branch] = []
    for record in dataset.transforms:
        state, _ = read_state(context.fetch(_reference(record["state"], context)))
        taken = [entry["name"] for entry in record["inputs"]]
        made = [entry["name"] for entry in record["outputs"] if entry["name"] not in record["passthrough"]]
        before = next((branch for branch in branches if branch.outputs == taken), None)
        if set(taken) <= raw:
            raw -= set(taken)
            found = _Branch([state], taken, made)
        elif before is not None:
            branches.remove(before)
            _forget_names(state)
            found = _Branch([*before.transformers, state], before.inputs, made)
        else:
            return None
        branches.insert(0, found)
    return branches


def _picks_columns(estimator: Any, dataset: Dataset) -> bool:
    known = getattr(estimator, "feature_names_in_", None)
    if known is not None and [str(name) for name in known] != dataset.features:
        return True
    return _has_column_transformer(estimator)


def _has_column_transformer(estimator: Any) -> bool:
    if type(estimator).__name__ == "ColumnTransformer":
        return True
    parts = [*getattr(estimator, "steps", []), *getattr(estimator, "transformer_list", [])]
    return any(_has_column_transformer(part[1]) for part in parts)


def _fitted_columns(branches: list[_Branch], rest: list[str], sample: Any) -> Any:
    """Return a ColumnTransformer that applies fitted transformers and lets the rest through, without fitting again."""
    from sklearn.compose import ColumnTransformer
    from sklearn.frozen import FrozenEstimator
    from sklearn.pipeline import Pipeline

    parts = []
    for number, branch in enumerate(branches):
        steps = branch.transformers
        whole = steps[0] if len(steps) == 1 else Pipeline([(f"step{n}", step) for n, step in enumerate(steps)])
        parts.append((f"transform{number}", whole, branch.inputs))
    through = [("rest", "passthrough", rest)] if rest else []
    frozen = [(name, FrozenEstimator(whole), inputs) for name, whole, inputs in parts]
    found = ColumnTransformer([*frozen, *through], sparse_threshold=0, verbose_feature_names_out=False)
    found.fit(sample)
    # the frozen shells were for fit only: exporters know the transformers themselves
    found.transformers = [*parts, *through]
    found.transformers_[: len(parts)] = parts
    return found


def _forget_names(estimator: Any) -> None:
    """Let an estimator take plain arrays: it was fitted on named columns, and warns at each call otherwise."""
    for part in [estimator, *(part for _, part in getattr(estimator, "steps", []))]:
        vars(part).pop("feature_names_in_", None)
