"""The OpenAPI document of what is served right now: every model's own columns, with ranges and an example."""

from __future__ import annotations

from typing import Any

from edgewright import __version__
from edgewright.serving.host import ModelHost
from edgewright.serving.model import ServedModel
from edgewright.serving.release import Feature

_TYPES = {"integer": ["number"], "number": ["number"], "boolean": ["boolean", "integer"]}


def build_openapi(host: ModelHost) -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    for name in sorted(host.models):
        model = host.models[name]
        schemas[f"{name}.Row"] = row_schema(model)
        schemas[f"{name}.Request"] = _request_schema(name, model)
        schemas[f"{name}.Response"] = _response_schema(model)
        paths[f"/models/{name}/invocations"] = {"post": _operation(name, model)}
        if host.describe(name)["default"]:
            paths["/invocations"] = {"post": {**_operation(name, model), "operationId": "predict"}}
    for path, (summary, answers) in _PAGES.items():
        responses = {code: {"description": text} for code, text in answers.items()}
        paths[path] = {"get": {"summary": summary, "tags": ["service"], "responses": responses}}
    paths.update(_ADMIN)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Edgewright prediction service",
            "version": __version__,
            "description": "Models of the registry, served from ONNX.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


def row_schema(model: ServedModel) -> dict[str, Any]:
    """Return the JSON Schema of one row."""
    return {
        "type": "object",
        "properties": {feature.name: _feature(feature, model.example) for feature in model.table.features},
        "required": model.table.names,
        "additionalProperties": False,
    }


def _feature(feature: Feature, example: dict[str, Any]) -> dict[str, Any]:
    kinds = _TYPES.get(feature.type, ["string"]) + (["null"] if feature.missing else [])
    schema: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
    if feature.minimum is not None and feature.maximum is not None:
        # a range is what training saw, not what is allowed, so it is no minimum and maximum
        schema["description"] = f"{feature.minimum:g} to {feature.maximum:g} in training"
        schema["x-range"] = [feature.minimum, feature.maximum]
    if example.get(feature.name) is not None:
        schema["examples"] = [example[feature.name]]
    return schema


def _request_schema(name: str, model: ServedModel) -> dict[str, Any]:
    row, width = {"$ref": f"#/components/schemas/{name}.Row"}, len(model.table.names)
    cells = {"type": "array", "minItems": width, "maxItems": width}
    split = {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": {"enum": model.table.names}},
            "index": {},
            "data": {"type": "array", "items": cells},
        },
        "required": ["data"],
    }
    rows = {"type": "array", "items": {"anyOf": [cells, row]}}
    columns = {"type": "object", "additionalProperties": {"type": "array"}}
    forms = {
        "dataframe_records": {"type": "array", "items": row},
        "dataframe_split": split,
        "instances": rows,
        "inputs": {"anyOf": [rows, columns]},
    }
    return {
        "oneOf": [
            {"type": "object", "title": form, "properties": {form: schema}, "required": [form]}
            for form, schema in forms.items()
        ]
    }


def _response_schema(model: ServedModel) -> dict[str, Any]:
    classes = model.document.classes
    properties: dict[str, Any] = {
        "predictions": {"type": "array", "items": {"enum": classes} if classes else {"type": "number"}},
        "model": {
            "type": "object",
            "properties": {key: {"type": "string"} for key in ("name", "version", "variant")},
        },
        "id": {"type": "string"},
        "warnings": {"type": "array", "items": {"type": "object"}, "description": "Values outside of their ranges."},
    }
    if model.document.problem == "classification":
        properties["probabilities"] = {
            "type": "array",
            "items": {"type": "array", "items": {"type": "number"}},
            "description": f"One row a row; the columns are the classes {', '.join(map(str, classes))}.",
        }
    return {"type": "object", "properties": properties, "required": ["predictions", "model", "id"]}


def _operation(name: str, model: ServedModel) -> dict[str, Any]:
    example = {"dataframe_records": [{key: model.example.get(key) for key in model.table.names}]}
    content = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{name}.Request"}, "example": example},
        "text/csv": {"schema": {"type": "string"}, "example": _csv_example(model)},
    }
    fault = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    return {
        "operationId": f"predict-{name}",
        "summary": f"Predict {model.document.label} with {name} version {model.version} ({model.variant})",
        "tags": ["predictions"],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "Predictions",
                "headers": {
                    "x-model-version": {"schema": {"type": "string"}},
                    "x-request-id": {"schema": {"type": "string"}},
                },
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}.Response"}}},
            },
            "400": {"description": "Wrong columns or values; says which row and column", **fault},
            "413": {"description": "Too many bytes or rows", **fault},
            "415": {"description": "Neither JSON nor CSV", **fault},
            "503": {"description": "No model is served", **fault},
        },
    }


def _csv_example(model: ServedModel) -> str:
    cells = ("" if model.example.get(name) is None else str(model.example[name]) for name in model.table.names)
    return f"{','.join(model.table.names)}\n{','.join(cells)}\n"


_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": ["string", "null"]},
                "details": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["code", "message"],
        },
        "id": {"type": "string"},
    },
    "required": ["error"],
}

_PAGES = {
    "/ping": ("Whether a model is ready", {"200": "A model is ready", "503": "No model is ready"}),
    "/health": ("What is served, since when, and its self-test", {"200": "A model is ready", "503": "None is ready"}),
    "/version": ("Versions of the software", {"200": "Versions"}),
    "/metrics": ("Prometheus metrics", {"200": "Exposition text"}),
}


_ADMIN_ANSWERS = {
    "200": "Done",
    "401": "A token is needed",
    "403": "The token is wrong",
    "404": "Not found",
    "409": "Refused with the reason; what was served before stays",
    "503": "The registry does not answer",
}


def _admin(summary: str, *codes: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "tags": ["administration"],
        "security": [{"token": []}],
        "responses": {code: {"description": _ADMIN_ANSWERS[code]} for code in ("200", "401", "403", *codes)},
    }


_NAME = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
_LOAD = {
    "type": "object",
    "properties": {
        "version": {"type": "string", "examples": ["3"]},
        "alias": {"type": "string", "examples": ["champion"]},
        "variant": {"type": "string", "examples": ["onnx-int8"]},
    },
}
_ADMIN: dict[str, Any] = {
    "/admin/models": {"get": _admin("List what is served")},
    "/admin/models/{name}": {
        "parameters": _NAME,
        "put": {
            **_admin("Load, verify, self-test and then serve a version", "404", "409", "503"),
            "requestBody": {"required": True, "content": {"application/json": {"schema": _LOAD}}},
        },
        "delete": _admin("Serve a model no longer", "404"),
    },
    "/admin/models/{name}/rollback": {
        "parameters": _NAME,
        "post": _admin("Serve what was served before", "404"),
    },
}
