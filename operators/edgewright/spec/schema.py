"""One JSON Schema for a whole document, made from the same models and tables that check it.

Editors complete and underline with it. It cannot know everything (files, functions, how tasks hang together, whether a
cron text can be read); ``edgewright check`` does.
"""

from __future__ import annotations

import copy
from typing import Any

from edgewright.spec import arguments
from edgewright.spec.arguments import DAG_ARGUMENTS, STEP_ARGUMENTS, TASK_ARGUMENTS, Integer, OneOf
from edgewright.spec.descriptions import DAG, TASK
from edgewright.spec.events import TRIGGERS, Profile
from edgewright.spec.load import SCHEMA, SCHEMAS
from edgewright.spec.mapping import MOST_ITEMS
from edgewright.spec.notify import MOMENTS, NOTICES
from edgewright.spec.params import FORMATS, KEYS
from edgewright.spec.schedule import PRESETS
from edgewright.spec.steps import STEPS, StepSpec
from edgewright.spec.steps.base import StepConfig

Json = dict[str, Any]
_ID = r"^[\w.-]+$"
_DOTTED = r"^[^\W\d]\w*(\.[^\W\d]\w*)+$"
_GATE = r"^\s*(>=|<=|==|>|<)\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*%?\s*$"
_DURATION = (
    r"^((?=\d)(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?|P(?=[\dWDT])(\d+W)?(\d+D)?(T(?=[\dHMS])(\d+H)?(\d+M)?(\d+S)?)?)$"
)
_DATE = r"^\d{4}-?\d{2}-?\d{2}([T ].+)?$"

#: What each reader of arguments takes.
_READERS: dict[Any, Json] = {
    arguments.duration: {
        "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _DURATION}],
        "examples": ["5m", "1h30m", "PT5M", 300],
    },
    arguments.moment: {"type": "string", "pattern": _DATE, "examples": ["2026-01-01", "2026-01-01T03:00:00+01:00"]},
    arguments.text: {"type": "string"},
    arguments.boolean: {"type": "boolean"},
    arguments.mapping: {"type": "object"},
    arguments.texts: {"type": "array", "items": {"type": "string"}},
    arguments.assets: {"type": "array", "items": {"$ref": "#/$defs/asset"}},
    arguments.text_or_texts: {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    arguments.callables: {
        "anyOf": [
            {"type": "string", "pattern": _DOTTED},
            {"type": "array", "items": {"type": "string", "pattern": _DOTTED}},
        ]
    },
    arguments.number_or_boolean: {"type": ["number", "boolean"]},
}


def build() -> Json:
    """Return the JSON Schema (draft 2020-12) of a pipeline document."""
    definitions: Json = _grammar()
    conditions = [part for spec in STEPS.values() for part in _step(spec, definitions)]
    triggers = [
        _object({kind: _model(model, definitions)}, required=[kind], description=_first_line(model))
        for kind, model in TRIGGERS.items()
    ]
    task = _task_keys()
    definitions["task"] = {
        **_object({**task, "id": _id("Name of the task, unique in the pipeline.")}),
        "description": "One entry of the pipeline; runs one step or any Airflow operator.",
        "anyOf": [{"required": ["id"]}, {"required": ["extends"]}],
        "allOf": conditions,
    }
    definitions["group"] = _group(task)
    definitions["entry"] = {
        "if": {"type": "object", "required": ["tasks"]},
        "then": {"$ref": "#/$defs/group"},
        "else": {"$ref": "#/$defs/task"},
    }
    definitions["template"] = {
        **_object({**task, "id": {"type": "string"}}),
        "description": "A part that tasks share by extends:.",
    }
    definitions["param"] = _param()
    definitions["asset"] = _asset()
    definitions["condition"] = _condition()
    profile = _model(Profile, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        "title": "Edgewright pipeline",
        "description": "A machine-learning pipeline that Apache Airflow runs. One document is one Dag.",
        **_object({**_document(triggers, profile), "notify": _notify(definitions)}, required=["dag_id", "tasks"]),
        "$defs": dict(sorted(definitions.items())),
    }


def _document(triggers: list[Json], profile: Json) -> Json:
    return {
        "$schema": {
            "type": "string",
            "pattern": "^(" + "|".join(address.replace(".", r"\.") for address in SCHEMAS) + ")",
            "description": "Which language this is; our own, or that of Airflow's YAML Dags.",
            "examples": [SCHEMA],
        },
        "dag_id": {**_id("Name of the pipeline in Airflow, unique in an installation."), "maxLength": 250},
        "schedule": _schedule(),
        "params": {
            "type": ["object", "null"],
            "description": "What can be chosen for each run: fields of Airflow's trigger form.",
            "propertyNames": {"pattern": r"^[^\W\d]\w*$"},
            "additionalProperties": {"$ref": "#/$defs/param"},
        },
        "templates": {
            "type": ["object", "null"],
            "description": "Parts that tasks share by extends:.",
            "additionalProperties": {"$ref": "#/$defs/template"},
        },
        "triggers": {
            "type": ["array", "null"],
            "description": "Events that start the pipeline, beside its schedule.",
            "items": {"anyOf": triggers},
        },
        "profiles": {
            "type": ["object", "null"],
            "description": "Places to run, by name; local is always there.",
            "propertyNames": {"not": {"const": "local"}},
            "additionalProperties": profile,
        },
        **{name: _argument(reader, DAG[name]) for name, reader in DAG_ARGUMENTS.items()},
        "tasks": {
            "type": "array",
            "minItems": 1,
            "description": "What is done, in the order of needs: and of references.",
            "items": {"$ref": "#/$defs/entry"},
        },
    }


def _group(task: Json) -> Json:
    """Return the schema of a group of tasks."""
    keys = {
        "id": {"type": "string", "pattern": r"^[\w-]+$", "maxLength": 200, "description": "Name of the group."},
        "tasks": {
            "type": "array",
            "minItems": 1,
            "description": "What is in it; ids and needs: are looked for here first.",
            "items": {"$ref": "#/$defs/entry"},
        },
        "needs": task["needs"],
        "for_each": task["for_each"],
        "best_of": task["best_of"],
        "tooltip": {"type": ["string", "null"], "description": "One line for Airflow's graph."},
    }
    return {**_object(keys, required=["id", "tasks"]), "description": "A group of tasks."}


def _for_each() -> Json:
    axis = {"anyOf": [{"type": "array", "minItems": 1}, {"$ref": "#/$defs/marker"}]}
    return {
        "description": "Runs once for each item of a list, of all combinations of several, of a param or of an output; "
        "{$t: '{{ item }}'} is the item.",
        "anyOf": [
            {"type": "array", "minItems": 1, "maxItems": MOST_ITEMS},
            {"$ref": "#/$defs/marker"},
            {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": r"^[^\W\d]\w*$"},
                "additionalProperties": axis,
            },
            {"type": "null"},
        ],
        "examples": [{"alpha": [0.001, 0.01], "hidden": [16, 32]}],
    }


def _best_of() -> Json:
    keys: Json = {
        "metric": {"type": "string", "minLength": 1},
        "mode": {"enum": ["max", "min"]},
        "task": {"type": "string", "description": "Which task of the group measures it."},
    }
    return {
        "description": "Which instance stands for all where another task takes an output.",
        "anyOf": [{"type": "string", "minLength": 1}, _object(keys, required=["metric"]), {"type": "null"}],
        "examples": ["roc_auc", {"metric": "rmse", "mode": "min"}],
    }


def _asset() -> Json:
    text = {"type": "string", "minLength": 1}
    keys = {"name": text, "uri": text, "group": text, "extra": {"type": "object"}}
    return {
        "description": "An asset: its URI or name, or all of it.",
        "anyOf": [
            text,
            {**_object(keys), "anyOf": [{"required": ["name"]}, {"required": ["uri"]}]},
            _object({"alias": text, "group": text}, required=["alias"]),
        ],
    }


def _condition() -> Json:
    some = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/condition"}}
    return {
        "description": "When assets start it; a list means all of them.",
        "anyOf": [
            {"$ref": "#/$defs/asset"},
            some,
            _object({"any": some}, required=["any"]),
            _object({"all": some}, required=["all"]),
        ],
    }


def _notify(definitions: Json) -> Json:
    moments = {"enum": list(MOMENTS)}
    when = {
        "description": "What is told; default: failure and gate.",
        "anyOf": [moments, {"type": "array", "items": moments}, {"type": "null"}],
    }
    ways = [
        _object({kind: _model(model, definitions), "when": when}, required=[kind], description=_first_line(model))
        for kind, model in NOTICES.items()
    ]
    dotted = {"uses": {"type": "string", "pattern": _DOTTED}, "with": {"type": "object"}, "when": when}
    ways.append(_object(dotted, required=["uses"], description="Any notifier of Airflow, by its dotted path."))
    return {"type": ["array", "null"], "description": "Who is told what.", "items": {"anyOf": ways}}


def _object(properties: Json, *, required: list[str] | None = None, description: str | None = None) -> Json:
    found: Json = {"type": "object", "additionalProperties": False, "properties": properties}
    if required:
        found["required"] = required
    if description:
        found["description"] = description
    return found


def _id(description: str) -> Json:
    return {"type": "string", "pattern": _ID, "maxLength": 200, "description": description}


def _argument(reader: Any, description: str) -> Json:
    if isinstance(reader, Integer):
        schema: Json = {"type": "integer", "minimum": reader.minimum}
    elif isinstance(reader, OneOf):
        schema = {"enum": list(reader.names)}
    else:
        schema = copy.deepcopy(_READERS[reader])
    examples = schema.pop("examples", None)
    found: Json = {"anyOf": [schema, {"type": "null"}], "description": description}
    return {**found, "examples": examples} if examples else found


def _schedule() -> Json:
    return {
        "description": "When it runs by itself; without one, by hand and by events.",
        "anyOf": [
            {"type": "null"},
            {"enum": list(PRESETS)},
            {"type": "string", "pattern": r"^\s*\S+(\s+\S+){4}\s*$", "description": "Cron."},
            _object(
                {
                    "uses": {"type": "string", "pattern": _DOTTED, "description": "Dotted path of a timetable."},
                    "with": {"type": "object", "description": "Its arguments."},
                },
                required=["uses"],
            ),
            _object(
                {
                    "assets": {"$ref": "#/$defs/condition"},
                    "time": {
                        "description": "A time beside the assets: whichever comes first.",
                        "anyOf": [{"type": "string"}, {"type": "object", "required": ["uses"]}, {"type": "null"}],
                    },
                },
                required=["assets"],
            ),
        ],
        "examples": ["@daily", "0 3 * * 0"],
    }


def _task_keys() -> Json:
    profile = {"type": "string", "minLength": 1}
    return {
        "uses": {
            "description": "A step by its short name, or any Airflow operator by its dotted path.",
            "anyOf": [
                *({"const": spec.name, "description": spec.summary} for spec in STEPS.values()),
                {"type": "string", "pattern": _DOTTED, "description": "Dotted path of an operator."},
                {"type": "null"},
            ],
        },
        "needs": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "Tasks that come first; those that $x names come first anyway.",
        },
        "extends": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "description": "Templates whose keys this one takes over.",
        },
        "with": {
            "type": ["object", "null"],
            "propertyNames": {"not": {"pattern": r"^\$"}},
            "additionalProperties": {"$ref": "#/$defs/value"},
            "description": "Arguments of the step or operator.",
        },
        "profile": {
            "description": "Where to run.",
            "anyOf": [
                profile,
                _object({"prefer": profile, "else": profile}, required=["prefer", "else"]),
                {"type": "null"},
            ],
            "examples": ["local"],
        },
        "for_each": _for_each(),
        "best_of": _best_of(),
        "setup": {"type": ["boolean", "null"], "description": "Whether it sets up what other tasks need."},
        "teardown": {
            "anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "description": "The setup tasks that it cleans up after, whatever became of the tasks between.",
        },
        **{name: _argument(reader, TASK[name]) for name, reader in {**TASK_ARGUMENTS, **STEP_ARGUMENTS}.items()},
    }


def _grammar() -> Json:
    file = _object({"$f": {"type": "string"}, "$file": {"type": "string"}})
    file |= {"minProperties": 1, "maxProperties": 1, "description": "Text of a file, relative to the document."}
    target = {
        "anyOf": [
            {"type": "string", "minLength": 1},
            _object({"task": {"type": "string"}, "key": {"type": ["string", "null"]}}, required=["task"]),
        ]
    }
    reference = _object({"$x": target, "$xcom": target}, description="Output of another task: {$x: task}.")
    template_text = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/file"}]}
    template = _object(
        {"$t": template_text, "$template": template_text}, description="A Jinja template, rendered when the task runs."
    )
    one = {"minProperties": 1, "maxProperties": 1}
    return {
        "file": file,
        "reference": {**reference, **one},
        "jinja": {**template, **one},
        "constant": _object({"$const": {}}, required=["$const"], description="A value that is taken as it is."),
        "marker": {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("reference", "jinja", "file", "constant")]},
        "value": {
            "anyOf": [
                {"$ref": "#/$defs/marker"},
                {
                    "type": "object",
                    "propertyNames": {"not": {"pattern": r"^\$"}},
                    "additionalProperties": {"$ref": "#/$defs/value"},
                },
                {"type": "array", "items": {"$ref": "#/$defs/value"}},
                {"type": ["string", "number", "boolean", "null"]},
            ]
        },
    }


def _param() -> Json:
    keys: Json = {key: {} for key in KEYS}
    kinds = ["string", "number", "integer", "boolean", "array", "object", "null"]
    keys["type"] = {"anyOf": [{"enum": kinds}, {"type": "array", "items": {"enum": kinds}}]}
    keys["format"] = {"enum": list(FORMATS)}
    for key in ("title", "description", "description_md", "section", "pattern"):
        keys[key] = {"type": "string"}
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"):
        keys[key] = {"type": "number"}
    for key in ("minLength", "maxLength", "minItems", "maxItems"):
        keys[key] = {"type": "integer", "minimum": 0}
    for key in ("enum", "examples", "required", "oneOf", "anyOf", "allOf"):
        keys[key] = {"type": "array"}
    for key in ("items", "properties", "values_display"):
        keys[key] = {"type": "object"}
    keys["uniqueItems"] = {"type": "boolean"}
    return {
        "description": "A JSON Schema with a default, or just the default.",
        "anyOf": [_object(keys), {"type": ["string", "number", "boolean", "array", "null"]}],
    }


# -- steps -----------------------------------------------------------------------------------------------------


def _step(spec: StepSpec, definitions: Json) -> list[Json]:
    """Return the conditions under which a task's ``with:`` is this step's."""
    schema = _model(spec.config, definitions)
    required = schema.pop("required", [])
    if "gates" in schema["properties"]:
        limit = {"anyOf": [{"type": "string", "pattern": _GATE}, {"$ref": "#/$defs/marker"}]}
        schema["properties"]["gates"] = {
            "description": schema["properties"]["gates"].get("description", ""),
            "type": "object",
            "additionalProperties": False,
            "properties": dict.fromkeys((name for name in spec.metrics if name[-1] != "*"), limit),
            "patternProperties": {f"^{name[:-1]}": limit for name in spec.metrics if name[-1] == "*"},
            "examples": [{spec.metrics[0]: ">= 0.75"}],
        }
    schema["description"] = f"{spec.name}: {spec.summary}"
    definitions[f"with_{spec.name}"] = schema
    uses = {"properties": {"uses": {"const": spec.name}}, "required": ["uses"]}
    found: list[Json] = [{"if": uses, "then": {"properties": {"with": {"$ref": f"#/$defs/with_{spec.name}"}}}}]
    if required:
        alone = {**uses, "not": {"required": ["extends"]}}
        found.append({"if": alone, "then": {"required": ["with"], "properties": {"with": {"required": required}}}})
    return found


def _model(model: type[StepConfig], definitions: Json) -> Json:
    """Return the schema of a configuration model, where every value may also be a marker."""
    schema = model.model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    for name, inner in schema.pop("$defs", {}).items():
        definitions[name] = _open(inner, top=True)
    found: Json = _open(schema, top=True)
    return found


def _open(schema: Any, *, top: bool = False) -> Any:
    """Let markers stand for values, and drop what only repeats names."""
    if not isinstance(schema, dict):
        return schema
    found = {key: value for key, value in schema.items() if key != "title"}
    if "properties" in found:
        found["properties"] = {name: _open(inner) for name, inner in found["properties"].items()}
    if found.get("type") == "object" and found.get("additionalProperties", True) is True:
        found["additionalProperties"] = {"$ref": "#/$defs/value"}
    elif isinstance(found.get("additionalProperties"), dict):
        found["additionalProperties"] = _open(found["additionalProperties"])
    if isinstance(found.get("items"), dict):
        found["items"] = _open(found["items"])
    if "anyOf" in found:
        found["anyOf"] = [_open(inner, top=True) for inner in found["anyOf"]]
    if top or not _says_a_type(found):
        return found
    outside = {key: found.pop(key) for key in ("description", "default", "examples") if key in found}
    kinds = found.pop("anyOf") if set(found) == {"anyOf"} else [found]
    return {**outside, "anyOf": [*kinds, {"$ref": "#/$defs/marker"}]}


def _says_a_type(schema: Json) -> bool:
    return not {"type", "anyOf", "$ref", "enum", "const"}.isdisjoint(schema)


def _first_line(model: type[StepConfig]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]
