"""The steps by name, described without importing what runs them."""

from __future__ import annotations

from edgewright.spec.steps import evaluate, quantize
from edgewright.spec.steps.base import Accepts, StepConfig, StepSpec
from edgewright.spec.steps.deploy import DeployConfig
from edgewright.spec.steps.evaluate import EvaluateConfig
from edgewright.spec.steps.fetch import FetchConfig
from edgewright.spec.steps.ingest import IngestConfig
from edgewright.spec.steps.publish import PublishConfig
from edgewright.spec.steps.quantize import QuantizeConfig
from edgewright.spec.steps.score import ScoreConfig
from edgewright.spec.steps.train import TrainConfig
from edgewright.spec.steps.transform import TransformConfig
from edgewright.spec.steps.validate import ValidateConfig
from edgewright.spec.steps.wait import WaitConfig

_TABLE = (
    StepSpec("ingest", IngestConfig, {"dataset": "dataset"}, 1, "edgewright.steps.ingest", libraries=("pyarrow",),
             state="edgewright.steps.sources:state", summary="reads data from anywhere into a versioned dataset"),
    StepSpec("validate", ValidateConfig, {"dataset": "dataset", "quarantine": "dataset", "report": "report"}, 1,
             "edgewright.steps.validate", state="", summary="keeps right rows, puts the others aside with the reason"),
    StepSpec("transform", TransformConfig, {"dataset": "dataset", "state": "model"}, 2, "edgewright.steps.transform",
             state="edgewright.steps.spark_environment:state", summary="changes a dataset by a function of yours"),
    StepSpec("train", TrainConfig, {"model": "model", "report": "report"}, 2, "edgewright.steps.train",
             state="edgewright.steps.warm_start:state",
             summary="fits a model by a function, a notebook or a script of yours"),
    StepSpec("evaluate", EvaluateConfig, {"report": "report"}, 1, "edgewright.steps.evaluate",
             state="edgewright.steps.champion:state", metrics=evaluate.GATE_METRICS,
             summary="measures a model and holds it against gates and the champion"),
    StepSpec("quantize", QuantizeConfig, {"model": "model", "float": "model", "report": "report"}, 4,
             "edgewright.steps.quantize", state="edgewright.targets.environments:state", metrics=quantize.GATE_METRICS,
             summary="compiles a model for its target and proves that it still works"),
    StepSpec("publish", PublishConfig, {"release": "bundle", "report": "report"}, 2, "edgewright.steps.publish",
             cached=False,
             summary="registers a model's variants as one version and moves the alias"),
    StepSpec("deploy", DeployConfig, {}, 1, "edgewright.steps.deploy", cached=False,
             summary="makes a published version answer requests"),
    StepSpec("fetch", FetchConfig, {"model": "model", "dataset": "dataset", "release": "bundle"}, 1,
             "edgewright.steps.fetch", cached=False,
             summary="takes a registered version out of the registry, to go on from it"),
    StepSpec("score", ScoreConfig, {"report": "report"}, 1, "edgewright.steps.score", cached=False,
             summary="asks a model about every row of files of any size"),
    StepSpec("wait", WaitConfig, {"batch": "batch"}, 1, "edgewright.steps.wait", cached=False,
             summary="holds the run until messages, objects or a model version are there, and takes them"),
)  # fmt: skip

#: All steps by their short name.
STEPS: dict[str, StepSpec] = {spec.name: spec for spec in _TABLE}

__all__ = ["STEPS", "Accepts", "StepConfig", "StepSpec"]
