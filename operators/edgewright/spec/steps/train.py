"""``train``: a function, a notebook, a script or an MLflow Project of yours makes a model of the part ``train``."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from edgewright.spec.arguments import Invalid, duration
from edgewright.spec.space import AXIS_KEYS, wrong_axis
from edgewright.spec.steps.base import Dataset, EntryPoint, StepConfig
from edgewright.spec.steps.evaluate import METRICS

#: What a notebook or a script may get its rows as, by the ending of a file's name.
INPUT_FORMATS = ("csv", "jsonl", "parquet")


def _check_every(value: Any) -> Any:
    try:
        given = None if value is None else duration(value)
    except Invalid as error:
        raise ValueError(f"must be a duration: {error}") from None
    if given is not None and given.total_seconds() < 1:
        raise ValueError("must be at least one second")
    return value


def _check_space(space: Any) -> Any:
    for name, axis in space.items() if isinstance(space, dict) else ():
        unknown = [key for key in axis if key not in AXIS_KEYS] if isinstance(axis, dict) else []
        why = f"no such key: {unknown[0]}" if unknown else wrong_axis(axis)
        if why:
            raise ValueError(f"{name}: {why}")
    return space


def _check_metric(metric: Any) -> Any:
    if metric is not None and metric not in METRICS:
        raise ValueError(f"{metric!r} is not measured; allowed are: {', '.join(METRICS)}")
    return metric


class SearchConfig(StepConfig):
    """A search whose every trial depends on what those before it scored; ``search:`` of a task."""

    method: Literal["optuna"]
    space: Annotated[
        dict[str, Any],
        BeforeValidator(_check_space),
        Field(min_length=1, description="What may vary: lists of values, or {from: ..., to: ...}."),
    ]
    trials: Annotated[int, Field(ge=1, le=1024, description="How many.")] = 20
    seed: Annotated[int, Field(ge=0, description="Another one tries other values.")] = 0
    metric: Annotated[
        str | None, BeforeValidator(_check_metric), Field(description="What is made better. Default: roc_auc or r2.")
    ] = None
    folds: Annotated[
        int, Field(ge=1, le=20, description="In how many folds of the training rows each trial is measured.")
    ] = 3


class TrainConfig(StepConfig):
    """Trains by exactly one of four.

    ``entry`` is called as ``entry(data, **args)`` and returns a fitted estimator, a PyTorch module or an ONNX model.
    ``notebook`` is executed with ``args`` in its cell of parameters; the model is what its variable ``returns`` holds.
    ``script`` is run with ``args`` as options, and leaves its model in the folder ``$EDGEWRIGHT_OUTPUT``.
    ``project`` is run by MLflow with ``args`` as parameters; the model is the one that it logs.
    """

    ONE_OF = ("entry", "notebook", "script", "project")
    ASIDE: ClassVar[frozenset[str]] = frozenset({"checkpoint"})

    data: Dataset
    entry: Annotated[
        EntryPoint | None,
        Field(description="A function of yours as file.py:function, relative to the pipeline's folder."),
    ] = None
    notebook: Annotated[
        str | None,
        Field(
            pattern=r"^[^:\\]+\.ipynb$",
            description="A notebook, relative to the pipeline's folder; runs unchanged.",
            examples=["explore.ipynb"],
        ),
    ] = None
    script: Annotated[
        str | None,
        Field(
            pattern=r"^[^:\\]+\.[A-Za-z0-9]+$",
            description="A program, relative to the pipeline's folder: train.py, train.R, train.sh, ...",
            examples=["train.py"],
        ),
    ] = None
    project: Annotated[
        str | None,
        Field(
            pattern=r"^[^:\\]+$",
            description="An MLflow Project: a folder with a file MLproject, relative to the pipeline's folder.",
            examples=["churn"],
        ),
    ] = None
    entry_point: Annotated[str, Field(pattern=r"^[\w.-]+$", description="Of a project: which of its entry points.")] = (
        "main"
    )
    environment: Annotated[
        Literal["local", "virtualenv", "uv"],
        Field(description="Of a project: run it in this task's environment, or in one that MLflow builds of its "
              "python_env."),
    ] = "local"  # fmt: skip
    args: Annotated[
        dict[str, Any],
        Field(description="Arguments of the function, parameters of the notebook or project, options of the script."),
    ] = {}
    inputs: Annotated[
        dict[str, Annotated[str, Field(pattern=r"^[\w.-]+\.(csv|jsonl|parquet)$")]],
        Field(
            description="Of a notebook, script or project: parameters that get the path of a file with the part train, "
            "by the name that the file shall have: {path: train.csv}."
        ),
    ] = {}
    returns: Annotated[
        str,
        Field(pattern=r"^[A-Za-z_]\w*$", description="Of a notebook: the variable that holds the fitted model."),
    ] = "model"
    interpreter: Annotated[
        list[str],
        Field(description="Of a script: the program that runs it, with its options. Default: by the file's ending."),
    ] = []
    warm_start: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
            description="Alias of the registered model that training goes on from: the function gets it as warm_start, "
            "None the first time.",
            examples=["champion"],
        ),
    ] = None
    checkpoint: Annotated[
        str | int | None,
        BeforeValidator(_check_every),
        Field(description="How often the folder of checkpoints is saved, such as 5m. What was saved last is there "
              "again when the task is tried again: data.checkpoint, or $EDGEWRIGHT_CHECKPOINT.", examples=["5m"]),
    ] = None  # fmt: skip
    #: Left out of the schema of ``with:``: in YAML it stands beside it.
    search: SkipJsonSchema[SearchConfig | None] = None
    problem: Annotated[
        Literal["auto", "classification", "regression"], Field(description="auto: by the label's type.")
    ] = "auto"
    seed: Annotated[int, Field(ge=0, description="Seeds random and numpy before the function is called.")] = 0
    experiment: Annotated[str | None, Field(description="MLflow experiment. Default: the dag_id.")] = None

    @property
    def code(self) -> str:
        """The function, notebook, script or ``MLproject`` that trains."""
        project = "/".join(part for part in (self.project or "").split("/") if part not in ("", "."))
        ours = f"{project}/MLproject".lstrip("/") if self.project else ""
        return self.entry or self.notebook or self.script or ours

    def entry_points(self) -> list[str]:
        """Return the user's code that this configuration names."""
        return [self.code]

    @model_validator(mode="after")
    def _one_way(self) -> TrainConfig:
        ways = [way for way in self.ONE_OF if getattr(self, way)]
        if len(ways) != 1:
            found = f"not {' and '.join(ways)}" if ways else "one of them is missing"
            raise ValueError(f"needs one of entry, notebook, script and project; {found}")
        for name, ways_of_it in (("inputs", ("notebook", "script", "project")), ("returns", ("notebook",)),
                                 ("interpreter", ("script",)), ("entry_point", ("project",)),
                                 ("environment", ("project",))):  # fmt: skip
            if name in self.model_fields_set and ways[0] not in ways_of_it:
                raise ValueError(f"{name} goes with {' or '.join(ways_of_it)}, not with {ways[0]}")
        self._check_search(ways[0])
        if self.warm_start and "warm_start" in self.args:
            raise ValueError("warm_start is given by the key of that name; leave it out of args")
        both = sorted(set(self.args) & set(self.inputs))
        if both:
            raise ValueError(f"{', '.join(both)} stands in args and in inputs; one of them")
        return self

    def _check_search(self, way: str) -> None:
        if self.search is None:
            return
        for name in ("warm_start", "checkpoint"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} does not go with search: every trial begins anew, and finished ones are kept")
        if way != "entry":
            raise ValueError(f"search goes with entry, not with {way}")
        both = sorted(set(self.args) & set(self.search.space))
        if both:
            raise ValueError(f"{', '.join(both)} stands in args and in search; one of them")
