"""Filling the folder that a command in somebody else's image sees (edgewright/steps/foreign.py)."""

from __future__ import annotations

import importlib
import json
import logging
import shutil
from pathlib import Path

from edgewright.artifacts import ArtifactStore
from edgewright.artifacts.digest import list_files
from edgewright.errors import ConfigError
from edgewright.spec.steps.quantize import QuantizeConfig
from edgewright.spec.steps.train import TrainConfig
from edgewright.steps.checkpoints import belongs_to, of_task
from edgewright.steps.context import StepContext
from edgewright.steps.contract import StepRequest
from edgewright.steps.data import Dataset
from edgewright.steps.execute import step_spec, validate_config
from edgewright.steps.foreign import KEY
from edgewright.steps.snapshot import unpacked
from edgewright.steps.train_inputs import lay_out

log = logging.getLogger("edgewright.steps")


def stage(request: StepRequest, folder: Path, seen: str | None = None) -> None:
    """Fill the folder: ``work``, ``input``, ``output``, ``args.json``, ``about.json``.

    Args:
        request: A ``train`` with a ``script:``, or a ``quantize`` for a target that such an image compiles.
        folder: Empty, or half filled by a try before.
        seen: Path at which the command will see the folder.

    Raises:
        EdgewrightError: the data or the code are not there.
    """
    request = unpacked(request)
    config = validate_config(step_spec(request.step), request.config)
    if request.source is None:
        raise ConfigError("there is no pipeline folder here", hint="give the request a source")
    for name in ("work", "input", "output"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    if isinstance(config, QuantizeConfig):
        with StepContext(request) as context:
            importlib.import_module("edgewright.steps.quantize").prepare(config, context, folder / "work")
        return
    assert isinstance(config, TrainConfig)
    _stage_train(config, request, Path(request.source.folder), folder, seen)


def _stage_train(config: TrainConfig, request: StepRequest, source: Path, folder: Path, seen: str | None) -> None:
    for name in list_files(source):
        if not any(part.startswith(".") for part in name.split("/")):
            (folder / "work" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / "work" / name)
    if not (folder / "work" / str(config.script)).is_file():
        raise ConfigError(f"no such file: {config.script}", hint="paths are relative to the pipeline's folder")
    dataset = Dataset.open(ArtifactStore(request.store).fetch(config.data))
    paths = lay_out(dataset, folder / "input", config.inputs)
    place = seen or str(folder)
    given = {**config.args, **{name: f"{place}/input/{path.name}" for name, path in paths.items()}}
    (folder / "args.json").write_text(json.dumps(given))
    problem = dataset.problem if config.problem == "auto" else config.problem
    about = {"label": dataset.label, "problem": problem, "features": dataset.features, "seed": config.seed}
    (folder / "about.json").write_text(json.dumps(about))
    _restore(config, request, folder)


def _restore(config: TrainConfig, request: StepRequest, folder: Path) -> None:
    """Fill the folder of checkpoints with the last one, and leave a note of what belongs into it."""
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    (folder / KEY).unlink(missing_ok=True)
    if config.checkpoint is None:
        return
    kept = of_task(config, request, ArtifactStore(request.store), folder / "checkpoint", {})
    kept.restore()
    (folder / KEY).write_text(belongs_to(config, request, {}))
    if kept.note:
        log.info("%s", kept.note)
