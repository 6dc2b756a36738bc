"""Parts of the document's JSON Schema: values and their markers, params, groups, mapping, assets."""

from __future__ import annotations

from typing import Any

from edgewright.spec.mapping import MOST_ITEMS
from edgewright.spec.params import FORMATS, KEYS
from edgewright.spec.search import METHODS
from edgewright.spec.steps.evaluate import METRICS

Json = dict[str, Any]


def mapping(properties: Json, *, required: list[str] | None = None, description: str | None = None) -> Json:
    """Return the schema of a mapping with these keys and no others."""
    found: Json = {"type": "object", "additionalProperties": False, "properties": properties}
    if required:
        found["required"] = required
    if description:
        found["description"] = description
    return found


def group(task: Json) -> Json:
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
        "search": task["search"],
        "best_of": task["best_of"],
        "tooltip": {"type": ["string", "null"], "description": "One line for Airflow's graph."},
    }
    return {**mapping(keys, required=["id", "tasks"]), "description": "A group of tasks."}


def for_each() -> Json:
    """Return the schema of ``for_each:``."""
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


def search() -> Json:
    """Return the schema of ``search:``."""
    number: Json = {"type": "number"}
    span = mapping({"from": number, "to": number, "log": {"type": "boolean"}, "step": number}, required=["from", "to"])
    axis = {"anyOf": [{"type": "array", "minItems": 1}, span]}
    space: Json = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": r"^[^\W\d]\w*$"},
        "additionalProperties": axis,
        "description": "What may vary: lists of values, or ranges.",
    }
    keys: Json = {
        "method": {
            "enum": list(METHODS),
            "description": "All combinations; so many drawn ones; or each chosen by what those before it scored.",
        },
        "space": space,
        "trials": {"type": "integer", "minimum": 1, "maximum": MOST_ITEMS, "description": "How many. Default: 20."},
        "seed": {"type": "integer", "minimum": 0, "description": "Another one draws other trials. Default: 0."},
        "metric": {"enum": list(METRICS), "description": "Of optuna: what is made better. Default: roc_auc or r2."},
        "folds": {
            "type": "integer",
            "minimum": 1,
            "maximum": 20,
            "description": "Of optuna: in how many folds of the training rows each trial is measured.",
        },
    }
    return {
        "description": "Runs once for each trial of a hyperparameter search; {$t: '{{ item.NAME }}'} is a value of it.",
        "anyOf": [mapping(keys, required=["method", "space"]), {"type": "null"}],
        "examples": [{"method": "random", "trials": 20, "space": {"alpha": {"from": 0.0001, "to": 1, "log": True}}}],
    }


def best_of() -> Json:
    """Return the schema of ``best_of:``."""
    keys: Json = {
        "metric": {"type": "string", "minLength": 1},
        "mode": {"enum": ["max", "min"]},
        "task": {"type": "string", "description": "Which task of the group measures it."},
    }
    return {
        "description": "Which instance stands for all where another task takes an output.",
        "anyOf": [{"type": "string", "minLength": 1}, mapping(keys, required=["metric"]), {"type": "null"}],
        "examples": ["roc_auc", {"metric": "rmse", "mode": "min"}],
    }


def asset() -> Json:
    """Return the schema of an asset."""
    text = {"type": "string", "minLength": 1}
    keys = {"name": text, "uri": text, "group": text, "extra": {"type": "object"}}
    return {
        "description": "An asset: its URI or name, or all of it.",
        "anyOf": [
            text,
            {**mapping(keys), "anyOf": [{"required": ["name"]}, {"required": ["uri"]}]},
            mapping({"alias": text, "group": text}, required=["alias"]),
        ],
    }


def condition() -> Json:
    """Return the schema of when assets start a pipeline."""
    some = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/condition"}}
    return {
        "description": "When assets start it; a list means all of them.",
        "anyOf": [
            {"$ref": "#/$defs/asset"},
            some,
            mapping({"any": some}, required=["any"]),
            mapping({"all": some}, required=["all"]),
        ],
    }


def grammar() -> Json:
    """Return the definitions of values and their markers."""
    file = mapping({"$f": {"type": "string"}, "$file": {"type": "string"}})
    file |= {"minProperties": 1, "maxProperties": 1, "description": "Text of a file, relative to the document."}
    target = {
        "anyOf": [
            {"type": "string", "minLength": 1},
            mapping({"task": {"type": "string"}, "key": {"type": ["string", "null"]}}, required=["task"]),
        ]
    }
    reference = mapping({"$x": target, "$xcom": target}, description="Output of another task: {$x: task}.")
    template_text = {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/file"}]}
    template = mapping(
        {"$t": template_text, "$template": template_text}, description="A Jinja template, rendered when the task runs."
    )
    one = {"minProperties": 1, "maxProperties": 1}
    return {
        "file": file,
        "reference": {**reference, **one},
        "jinja": {**template, **one},
        "variable": mapping(
            {"$env": {"type": "string", "minLength": 1}},
            required=["$env"],
            description="An environment variable that is declared under env:, or a text with ${NAME} in it.",
        ),
        "constant": mapping({"$const": {}}, required=["$const"], description="A value that is taken as it is."),
        "marker": {
            "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("reference", "jinja", "file", "constant", "variable")]
        },
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


def param() -> Json:
    """Return the schema of a param."""
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
        "anyOf": [mapping(keys), {"type": ["string", "number", "boolean", "array", "null"]}],
    }
