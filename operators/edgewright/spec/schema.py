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
from edgewright.spec.handlers import NOT_BESIDE
from edgewright.spec.jinja import CONTEXT_NAMES
from edgewright.spec.load import SCHEMA, SCHEMAS
from edgewright.spec.notify import MOMENTS, NOTICES
from edgewright.spec.profiles import Profile
from edgewright.spec.schedule import PRESETS
from edgewright.spec.schema_parts import (
    Json,
    asset,
    best_of,
    condition,
    for_each,
    grammar,
    group,
    mapping,
    param,
    search,
)
from edgewright.spec.steps import STEPS, StepSpec
from edgewright.spec.steps.base import StepConfig
from edgewright.spec.triggers import TRIGGERS

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
    arguments.jinja_settings: mapping({name: {"type": kind} for name, kind in arguments.JINJA_SETTINGS.items()}),
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


#: What task_defaults may hold.
DEFAULT_KEYS = ("profile", *TASK_ARGUMENTS, *STEP_ARGUMENTS)


def build() -> Json:
    """Return the JSON Schema (draft 2020-12) of a pipeline document."""
    definitions: Json = grammar()
    conditions = [_step(spec, definitions) for spec in STEPS.values()]
    definitions["complete"] = _complete(definitions)
    triggers = [
        mapping({kind: _model(model, definitions)}, required=[kind], description=_first_line(model))
        for kind, model in TRIGGERS.items()
    ]
    task = _task_keys()
    definitions["task"] = {
        **mapping({**task, "id": _id("Name of the task, unique in the pipeline.")}),
        "description": "One entry of the pipeline; runs one step or any Airflow operator.",
        "anyOf": [{"required": ["id"]}, {"required": ["extends"]}],
        "allOf": [*conditions, _handler()],
    }
    definitions["group"] = group(task)
    definitions["entry"] = {
        "if": {"type": "object", "required": ["tasks"]},
        "then": {"$ref": "#/$defs/group"},
        "else": {"$ref": "#/$defs/task"},
    }
    definitions["template"] = {
        **mapping({**task, "id": {"type": "string"}}),
        "description": "A part that tasks share by extends:.",
    }
    definitions["param"] = param()
    definitions["asset"] = asset()
    definitions["condition"] = condition()
    profile = _model(Profile, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
        "title": "Edgewright pipeline",
        "description": "A machine-learning pipeline that Apache Airflow runs. One document is one Dag.",
        **_whole(triggers, profile, definitions),
        "$defs": dict(sorted(definitions.items())),
    }


def _whole(triggers: list[Json], profile: Json, definitions: Json) -> Json:
    """Return the schema of a document: its keys, and those that make one of several files."""
    definitions["defaults"] = mapping({k: v for k, v in _task_keys().items() if k in DEFAULT_KEYS})
    keys = {**_document(triggers, profile), "notify": _notify(definitions)}
    overlay = {key: keys[key] for key in keys if key not in ("$schema", "dag_id", "tasks")}
    overlay["tasks"] = {
        "type": "object",
        "description": "What is different, by task id.",
        "additionalProperties": {"type": "object"},
    }
    keys["environments"] = {
        "type": "object",
        "description": "What is different where; the installation says which one it is.",
        "additionalProperties": mapping(overlay),
    }
    keys["include"] = {
        "description": "Files whose keys and tasks come before these; paths relative to this file.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}],
    }
    elsewhere = [{"required": [key]} for key in ("step_defaults", "include", "environments")]
    return {
        **mapping(keys, required=["dag_id"]),
        # tasks, and whatever else is missing, may come from an included file
        "anyOf": [{"required": ["tasks"]}, {"required": ["include"]}],
        "if": {"not": {"anyOf": elsewhere}},
        "then": {"properties": {"tasks": {"items": {"$ref": "#/$defs/complete"}}}},
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
        "task_defaults": {
            "anyOf": [{"$ref": "#/$defs/defaults"}, {"type": "null"}],
            "description": "Arguments that all tasks have unless they say otherwise.",
        },
        "step_defaults": {
            "type": ["object", "null"],
            "description": "Arguments that all tasks of a step have unless they say otherwise.",
            "propertyNames": {"enum": list(STEPS)},
            "additionalProperties": {
                "allOf": [{"type": "object", "properties": {"with": {"type": "object"}}}],
            },
        },
        "env": {
            "type": ["object", "null"],
            "description": "Environment variables that {$env: NAME} may read; never secrets.",
            "propertyNames": {"pattern": r"^[A-Za-z_][A-Za-z0-9_]*$"},
            "additionalProperties": {
                "anyOf": [
                    mapping(
                        {
                            "default": {"type": ["string", "number", "boolean", "null"]},
                            "type": {"enum": ["string", "integer", "number", "boolean"]},
                            "description": {"type": "string"},
                        }
                    ),
                    {"type": ["string", "number", "boolean", "null"]},
                ]
            },
        },
        **{name: _argument(reader, DAG[name]) for name, reader in DAG_ARGUMENTS.items()},
        "tasks": {
            "type": "array",
            "minItems": 1,
            "description": "What is done, in the order of needs: and of references.",
            "items": {"$ref": "#/$defs/entry"},
        },
    }


def _notify(definitions: Json) -> Json:
    moments = {"enum": list(MOMENTS)}
    when = {
        "description": "What is told; default: failure and gate.",
        "anyOf": [moments, {"type": "array", "items": moments}, {"type": "null"}],
    }
    ways = [
        mapping({kind: _model(model, definitions), "when": when}, required=[kind], description=_first_line(model))
        for kind, model in NOTICES.items()
    ]
    dotted = {"uses": {"type": "string", "pattern": _DOTTED}, "with": {"type": "object"}, "when": when}
    ways.append(mapping(dotted, required=["uses"], description="Any notifier of Airflow, by its dotted path."))
    return {"type": ["array", "null"], "description": "Who is told what.", "items": {"anyOf": ways}}


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
    found: Json = {"anyOf": [schema, {"$ref": "#/$defs/variable"}, {"type": "null"}], "description": description}
    return {**found, "examples": examples} if examples else found


def _schedule() -> Json:
    return {
        "description": "When it runs by itself; without one, by hand and by events.",
        "anyOf": [
            {"type": "null"},
            {"$ref": "#/$defs/variable"},
            {"enum": list(PRESETS)},
            {"type": "string", "pattern": r"^\s*\S+(\s+\S+){4}\s*$", "description": "Cron."},
            mapping(
                {
                    "uses": {"type": "string", "pattern": _DOTTED, "description": "Dotted path of a timetable."},
                    "with": {"type": "object", "description": "Its arguments."},
                },
                required=["uses"],
            ),
            mapping(
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
        "run": {
            "type": ["object", "null"],
            "propertyNames": {"pattern": r"^[^\W\d]\w*$", "not": {"enum": sorted(CONTEXT_NAMES)}},
            "additionalProperties": {"$ref": "#/$defs/value"},
            "description": "Arguments of a handler in another language, which does the task instead of uses:.",
        },
        "profile": {
            "description": "Where to run.",
            "anyOf": [
                profile,
                mapping({"prefer": profile, "else": profile}, required=["prefer", "else"]),
                {"type": "null"},
            ],
            "examples": ["local"],
        },
        "for_each": for_each(),
        "search": search(),
        "best_of": best_of(),
        "setup": {"type": ["boolean", "null"], "description": "Whether it sets up what other tasks need."},
        "teardown": {
            "anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "description": "The setup tasks that it cleans up after, whatever became of the tasks between.",
        },
        **{name: _argument(reader, TASK[name]) for name, reader in {**TASK_ARGUMENTS, **STEP_ARGUMENTS}.items()},
    }


def _handler() -> Json:
    """Return the condition under which a task is a handler's: nothing of a step or an operator beside it."""
    return {
        "if": {"required": ["run"], "properties": {"run": {"type": "object"}}},
        "then": {"properties": {key: {"type": "null"} for key in NOT_BESIDE}},
    }


# -- steps -----------------------------------------------------------------------------------------------------


def _complete(definitions: Json) -> Json:
    """Return what a task must have where nothing else in the document can supply it, with the tasks of groups."""
    conditions: list[Json] = []
    for spec in STEPS.values():
        needed: Json = (
            {"required": required} if (required := definitions[f"with_{spec.name}"].pop("required", [])) else {}
        )
        if spec.config.ONE_OF:
            needed["oneOf"] = [{"required": [key]} for key in spec.config.ONE_OF]
        if needed:
            alone = {
                "properties": {"uses": {"const": spec.name}},
                "required": ["uses"],
                "not": {"required": ["extends"]},
            }
            conditions.append({"if": alone, "then": {"required": ["with"], "properties": {"with": needed}}})
    group = {"properties": {"tasks": {"items": {"$ref": "#/$defs/complete"}}}}
    return {"allOf": [*conditions, group]}


def _step(spec: StepSpec, definitions: Json) -> Json:
    """Return the condition under which a task's ``with:`` is this step's."""
    schema = _model(spec.config, definitions)
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
        if "verified" in spec.metrics:
            schema["properties"]["gates"]["properties"]["verified"] = {"anyOf": [{"type": "boolean"}, *limit["anyOf"]]}
    schema["description"] = f"{spec.name}: {spec.summary}"
    schema |= _inner(spec.config, definitions)
    definitions[f"with_{spec.name}"] = schema
    uses = {"properties": {"uses": {"const": spec.name}}, "required": ["uses"]}
    return {"if": uses, "then": {"properties": {"with": {"$ref": f"#/$defs/with_{spec.name}"}}}}


def _inner(model: type[StepConfig], definitions: Json) -> Json:
    """Return the conditions under which a free mapping has the keys of one of several models."""
    conditions: list[Json] = []
    for key, (other, models) in model.INNER.items():
        for value, inner in models.items():
            definitions[inner.__name__] = _model(inner, definitions)
            default = model.model_fields[other].default == value
            chosen: Json = {"properties": {other: {"const": value}}, **({} if default else {"required": [other]})}
            then = {"anyOf": [{"$ref": f"#/$defs/{inner.__name__}"}, {"$ref": "#/$defs/marker"}]}
            conditions.append({"if": chosen, "then": {"properties": {key: then}}})
    return {"allOf": conditions} if conditions else {}


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
    if "oneOf" in found:  # what tells them apart is no part of a schema
        found["anyOf"] = found.pop("oneOf")
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
