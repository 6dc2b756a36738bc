"""The prediction services of the local stack: one for each name that a pipeline deploys to."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from edgewright.cli.stack.ports import HOST
from edgewright.errors import ConfigError
from edgewright.installation import FeatureLog

#: The service of a folder in which no pipeline deploys.
DEFAULT = "default"
PREFIX = "service "
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def part_name(name: str) -> str:
    """Return the name of a service's process."""
    return f"service-{name}"


def command(
    home: Path, name: str, port: int, tracking_uri: str, token_file: Path, feature_log: FeatureLog | None = None
) -> list[str]:
    """Return a service's command line."""
    logging = feature_log.options() if feature_log else []
    return [
        sys.executable, "-m", "edgewright.serving", "--host", HOST, "--port", str(port),
        "--home", str(home / "serving" / name), "--tracking-uri", tracking_uri, "--token-file", str(token_file),
        *logging,
    ]  # fmt: skip


def service_names(dags: Path, asked: Iterable[str] = ()) -> list[str]:
    """Return the services that were asked for and those that the pipelines deploy to; ``default`` where there are none.

    Raises:
        ConfigError: a name cannot be that of a folder.
    """
    from edgewright.spec import Pipeline, check_tree

    names = dict.fromkeys(asked)
    for _, pipeline in check_tree([dags]):
        # a pipeline with faults shows them in Airflow; the others go on
        for task in pipeline.tasks if isinstance(pipeline, Pipeline) else ():
            to = task.config.get("to") if task.uses == "deploy" else None
            if isinstance(to, dict) and isinstance(to.get("service"), str):
                names[to["service"]] = None
    for name in names:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"not a name of a service: {name!r}", hint="letters, digits, points, dashes and underscores, at most 63"
            )
    return list(names) or [DEFAULT]
