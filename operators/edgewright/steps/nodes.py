"""``python -m edgewright.steps.nodes REQUEST``: one of several nodes that train one model together.

Node 0 answers the request as ever. The others fetch the same data and run the same code, which meets in the
rendezvous of its framework; what they return or leave behind is dropped. Nobody begins before all are there.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edgewright.artifacts import ArtifactStore
from edgewright.errors import EdgewrightError
from edgewright.steps.contract import ALONE, StepRequest, StepResult, Terminated, error_model

log = logging.getLogger("edgewright.steps")
_POLL = 1.0


def gather(hosts: Sequence[str], seconds: float) -> list[str]:
    """Wait until all names resolve; return those that still do not."""
    deadline = time.monotonic() + seconds
    missing = list(hosts)
    while True:
        missing = [host for host in missing if not _resolves(host)]
        if not missing or time.monotonic() >= deadline:
            return missing
        time.sleep(_POLL)


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def follow(request: StepRequest) -> int:
    """Run the code of a training beside node 0; return the exit code.

    What goes wrong here is the result of the task, for it ends the training of all.
    """
    from edgewright.steps.context import StepContext
    from edgewright.steps.execute import step_spec, validate_config
    from edgewright.steps.snapshot import unpacked
    from edgewright.steps.train import follow as train

    store = ArtifactStore(request.store)
    try:
        config = validate_config(step_spec(request.step), request.config)
        with StepContext(unpacked(request), store) as context:
            train(config, context)  # type: ignore[arg-type]
    except EdgewrightError as error:
        error.message = f"node {os.environ['EDGEWRIGHT_NODE']}: {error.message}"
        result = StepResult(step=request.step, identity=request.identity, state="failed", error=error_model(error))
        store.create_json(f"{request.identity.key}/result.json", result.model_dump(mode="json"))
        print(f"error: {request.step}: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


def main(arguments: list[str]) -> int:
    """Be one node; return its exit code."""
    (file,) = arguments
    number, hosts = int(os.environ["EDGEWRIGHT_NODE"]), os.environ["EDGEWRIGHT_HOSTS"].split(",")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        missing = gather(hosts, float(os.environ["EDGEWRIGHT_START_TIMEOUT"]))
        if missing:
            log.error("%d of %d nodes did not come: %s", len(missing), len(hosts), ", ".join(missing))
            return ALONE
        log.info("node %d of %d", number, len(hosts))
        if number:
            return follow(StepRequest.model_validate(json.loads(Path(file).read_text())))
    except Terminated:
        return 128 + signal.SIGTERM
    from edgewright.steps.__main__ import main as answer

    return answer([file])


def _terminate(number: int, frame: object) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
