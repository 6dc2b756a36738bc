"""What every step's ``with:`` has in common, and how a step is described without importing it."""

from __future__ import annotations

import datetime
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from edgewright.artifacts.refs import ArtifactRef, Kind
from edgewright.spec.gates import parse_gate

ENTRY_PATTERN = r"^[^:\\]+\.py:[A-Za-z_][A-Za-z0-9_]*$"
_ENTRY = re.compile(ENTRY_PATTERN)


def _check_start(value: Any) -> Any:
    if isinstance(value, str) and value not in ("latest", "earliest"):
        try:
            datetime.datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be latest, earliest, or a date such as 2026-01-01") from None
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else value


#: Where to begin to read a topic.
Start = Annotated[str, BeforeValidator(_check_start)]


class StepConfig(BaseModel):
    """Base of every step's typed configuration (its ``with:``). Unknown keys are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    #: Free mappings whose keys follow from another key: ``{key: (other key, {its value: model})}``.
    INNER: ClassVar[Mapping[str, tuple[str, Mapping[str, type[StepConfig]]]]] = {}

    #: Keys that change nothing about the result, and so are no part of the cache key.
    ASIDE: ClassVar[frozenset[str]] = frozenset()

    #: Keys of which exactly one must be there.
    ONE_OF: ClassVar[tuple[str, ...]] = ()

    def references(self) -> dict[str, ArtifactRef]:
        """Return the artifacts that this configuration takes in, by dotted place (``data``, ``models.0``)."""
        found: dict[str, ArtifactRef] = {}
        for name in type(self).model_fields:
            _collect(name, getattr(self, name), found)
        return found

    @classmethod
    def inner_models(cls, config: Mapping[str, Any]) -> dict[str, type[StepConfig]]:
        """Return the models of the free mappings in a ``with:`` whose keys follow from another key of it."""
        found: dict[str, type[StepConfig]] = {}
        for key, (other, models) in cls.INNER.items():
            chosen = config.get(other, cls.model_fields[other].default)
            if isinstance(chosen, str) and chosen in models and isinstance(config.get(key, {}), dict):
                found[key] = models[chosen]
        return found

    def entry_points(self) -> list[str]:
        """Return the user's functions that this configuration names (``file.py:function``)."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return [value for value in values if isinstance(value, str) and _ENTRY.match(value)]


def _collect(place: str, value: Any, found: dict[str, ArtifactRef]) -> None:
    if isinstance(value, ArtifactRef):
        found[place] = value
    elif isinstance(value, dict):
        for key, item in value.items():
            _collect(f"{place}.{key}", item, found)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _collect(f"{place}.{index}", item, found)


#: Tag of a field's long form, where a text or a mapping may stand: no part of the document.
MAPPING = "mapping"

#: Stands among the kinds of artifact that a field takes where it takes a text as well.
TEXT = "text"


@dataclass(frozen=True)
class Accepts:
    """Annotation of an input field: which kinds of artifact fit, found by ``$x`` among a task's outputs.

    Attributes:
        kinds: The kinds.
        text: Whether a text fits as well (:data:`TEXT` stands among the kinds then).
    """

    kinds: tuple[Kind, ...]
    text: bool = False


def accepted_kinds(model: type[StepConfig]) -> dict[str, tuple[str, ...]]:
    """Return the kinds of artifact that each input field of a configuration takes, by the name used in YAML."""
    found: dict[str, tuple[str, ...]] = {}
    for name, info in model.model_fields.items():
        marks = [m for m in info.metadata if isinstance(m, Accepts)]
        for argument in typing.get_args(info.annotation):
            marks += [m for m in getattr(argument, "__metadata__", ()) if isinstance(m, Accepts)]
        if marks:
            found[info.alias or name] = (*marks[0].kinds, TEXT) if marks[0].text else marks[0].kinds
    return found


def _check_gates(gates: Any) -> Any:
    if isinstance(gates, dict):
        for metric, text in gates.items():
            if isinstance(text, str):  # anything else is refused by the field's own type
                parse_gate(str(metric), text)
    return gates


Dataset = Annotated[ArtifactRef, Accepts(("dataset",)), Field(description="A dataset: {$x: task}.")]
Model = Annotated[ArtifactRef, Accepts(("model",)), Field(description="A model: {$x: task}.")]
Bundle = Annotated[ArtifactRef, Accepts(("bundle",)), Field(description="A release: {$x: publish task}.")]
EntryPoint = Annotated[
    str,
    Field(
        pattern=_ENTRY.pattern,
        description="A function of yours as file.py:function, relative to the pipeline's folder.",
        examples=["model.py:fit"],
    ),
]
Fraction = Annotated[float, Field(ge=0, le=1)]
Gates = Annotated[
    dict[str, str],
    BeforeValidator(_check_gates),
    Field(
        default_factory=dict,
        description='Limits by metric, such as {accuracy: ">= 0.75"}. One that fails fails the task.',
    ),
]


@dataclass(frozen=True)
class StepSpec:
    """A step as the rest of the system knows it; light to import.

    Attributes:
        name: Short name in ``uses:``.
        config: Model of its ``with:``.
        outputs: Name -> kind of the artifacts that it makes; the first of a kind is what ``{$x: task}`` means.
        version: Raised when the same inputs give other outputs than before; part of the cache key.
        module: Where ``run(config, context)`` is; imported only when the step runs.
        state: Where ``state(config, context)`` is, as ``module:function`` that is light to import, so that a cached
            result costs no heavy import; empty for a step that reads nothing beside its inputs; ``None``: in its
            module.
        cached: Whether a result may answer for a later run.
        libraries: Distributions whose versions decide the outputs; ``None`` means all that are installed.
        metrics: Names that its gates may use; a trailing ``*`` matches any ending.
        summary: One line for people.
    """

    name: str
    config: type[StepConfig]
    outputs: dict[str, Kind]
    version: int
    module: str
    cached: bool = True
    libraries: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = field(default=())
    summary: str = ""
    state: str | None = None
