"""The model card: ``README.md`` of a release, written from its manifest alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def model_card(manifest: Mapping[str, Any]) -> str:
    """Return the card as Markdown: what it is, how good, where from, how to call."""
    parts = [
        _head(manifest),
        _measured(manifest["evaluation"]),
        _variants(manifest),
        _columns(manifest),
        _call(manifest),
        _lineage(manifest["lineage"]),
    ]
    return "\n".join(part for part in parts if part)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _head(manifest: Mapping[str, Any]) -> str:
    kind = manifest["problem"]
    what = f"A {kind} model that predicts `{manifest['label']}`"
    if manifest["classes"]:
        what += f" as one of {', '.join(f'`{_cell(label)}`' for label in manifest['classes'])}"
    text = f"# {manifest['name']}\n\n"
    if manifest["description"]:
        text += f"{manifest['description']}\n\n"
    return text + f"{what}.\nDigest `{manifest['digest']}`.\n"


def _measured(evaluation: Mapping[str, Any]) -> str:
    text = "## How good it is\n\n"
    if not evaluation["metrics"] and not evaluation["gates"]:
        return text + "Nothing was measured in the run that published it.\n"
    if evaluation["metrics"]:
        text += _table(("metric", "value"), sorted(evaluation["metrics"].items())) + "\n"
    if evaluation["gates"]:
        rows = (
            (gate["task"], gate["metric"], f"{gate['operator']} {gate['limit']:g}", gate["value"], _verdict(gate))
            for gate in evaluation["gates"]
        )
        text += _table(("task", "gate", "limit", "measured", "verdict"), rows)
    return text


def _verdict(gate: Mapping[str, Any]) -> str:
    verdict = "passed" if gate["passed"] else "FAILED"
    return f"{verdict} ({gate['note']})" if gate.get("note") else verdict


def _variants(manifest: Mapping[str, Any]) -> str:
    default = manifest["default_variant"]
    quality = "accuracy" if manifest["problem"] == "classification" else "rmse"
    rows = (
        (
            f"{variant['target']}{' (default)' if variant['target'] == default else ''}",
            variant["format"],
            int(variant["metrics"].get("size_bytes", variant["size"])),
            variant["metrics"].get(quality),
            _run_by(variant.get("verified", {})),
            "yes" if variant["self_tested"] else "no",
            f"`{variant['sha256'][:12]}`",
        )
        for variant in manifest["variants"]
    )
    text = "## Variants\n\n" + _table(
        ("variant", "format", "bytes", quality, "run before publishing by", "has a self-test", "sha256"), rows
    )
    if default is None:
        text += "\nNone of them can be loaded by the prediction service, which takes ONNX only.\n"
    if any(variant["format"] == "pickle" for variant in manifest["variants"]):
        text += "\nLoading a pickle runs the code that is in it: do it only if you trust who published it.\n"
    return text


def _run_by(verified: Mapping[str, Any]) -> str:
    if verified.get("unverified"):
        return f"nothing: {verified['unverified']}"
    return str(verified.get("runtime") or "")


def _columns(manifest: Mapping[str, Any]) -> str:
    rows = (
        (
            feature["name"],
            feature["type"],
            feature.get("minimum"),
            feature.get("maximum"),
            "yes" if feature.get("missing") else "no",
        )
        for feature in manifest["features"]
    )
    return "## Columns\n\n" + _table(("column", "type", "smallest seen", "largest seen", "may be missing"), rows)


def _call(manifest: Mapping[str, Any]) -> str:
    if manifest["default_variant"] is None:
        return ""
    row = {feature["name"]: _example(feature) for feature in manifest["features"]}
    body = json.dumps({"dataframe_records": [row]}, ensure_ascii=False)
    quoted = body.replace("'", "'\\''")
    return (
        "## How to call it\n\n```sh\n"
        f"curl -s http://127.0.0.1:8500/models/{manifest['name']}/invocations \\\n"
        f"  -H 'Content-Type: application/json' -d '{quoted}'\n```\n\n"
        "With MLflow and onnxruntime installed:\n\n```python\n"
        "import mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{manifest["name"]}@champion")\n'
        f"{_predict(manifest)}```\n"
    )


def _predict(manifest: Mapping[str, Any]) -> str:
    score = "probabilities" if manifest["problem"] == "classification" else "prediction"
    if all(feature["type"] in ("integer", "number", "boolean") for feature in manifest["features"]):
        return f'model.predict(rows)["{score}"]  # rows: float32, the columns in the order above, gaps as NaN\n'
    return f'model.predict(columns)["{score}"]  # columns: name -> array [rows, 1], float32 or object\n'


def _example(feature: Mapping[str, Any]) -> Any:
    if feature["type"] not in ("integer", "number", "boolean"):
        return ""
    low, high = feature.get("minimum"), feature.get("maximum")
    middle = (low + high) / 2 if low is not None and high is not None else 0.0
    if feature["type"] == "boolean":
        return middle > 0.5
    return round(middle) if feature["type"] == "integer" else float(f"{middle:.6g}")


def _lineage(lineage: Mapping[str, Any]) -> str:
    rows = [(key.replace("_", " "), f"`{value}`") for key, value in sorted(lineage.items()) if value not in (None, "")]
    return "## Where it comes from\n\n" + _table(("what", "value"), rows) if rows else ""
