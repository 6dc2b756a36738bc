"""``python -m edgewright.steps REQUEST``: run one step by hand, in a container or in a pod."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path

import fsspec
from pydantic import ValidationError

from edgewright.errors import EdgewrightError, GateFailed, Skipped
from edgewright.steps.contract import StepRequest, Terminated
from edgewright.steps.execute import execute
from edgewright.steps.snapshot import unpacked

_HELP = """\
Runs one step and writes its result into the artifact store that the request names, at
runs/<dag_id>/<run_id>/<task_id>/result.json. The same program runs in an Airflow worker, in a container and in a pod.

exit codes:
  0   success, or skipped (the result says which)
  1   the request, the data, the user's code or a gate: mend it, trying again does not help
  2   wrong usage of this command
  69  a service does not answer
  70  a fault of ours, or of the machine
  143 it was asked to end (SIGTERM); there is no result

a small request:
  {"version": 1, "step": "ingest", "config": {"source": "cleveland.csv", "label": "num"},
   "identity": {"dag_id": "bracelet", "run_id": "by-hand", "task_id": "data"},
   "source": {"folder": "dags/bracelet"}, "store": "/tmp/store"}
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edgewright.steps",
        description="Run one step from its request document.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("request", help="path or address of a request document, or - for standard input")
    parser.add_argument("--json", action="store_true", help="print the result document on standard output")
    parser.add_argument("--cache", choices=("use", "refresh", "off"), help="override the request's use of the cache")
    parser.add_argument("--quiet", action="store_true", help="log warnings only")
    options = parser.parse_args(arguments)
    level = logging.WARNING if options.quiet else logging.INFO
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        request = StepRequest.model_validate(json.loads(_read(options.request)))
    except (OSError, ValueError, ValidationError) as error:
        print(f"error: {options.request}: not a request: {error}", file=sys.stderr)
        return 1
    if options.cache:
        request.cache = options.cache
    # an evicted pod has a few seconds; the first program of a container would not even hear the signal
    signal.signal(signal.SIGTERM, _terminate)
    try:
        result = execute(unpacked(request))
    except Skipped as error:
        print(f"skipped: {error}", file=sys.stderr)
        return 0
    except EdgewrightError as error:
        print(f"error: {request.step}: {error}", file=sys.stderr)
        return 1 if isinstance(error, GateFailed) else error.exit_code
    except Terminated:
        print(f"{request.step}: terminated", file=sys.stderr)
        return 128 + signal.SIGTERM
    except Exception:
        logging.getLogger("edgewright.steps").exception(
            "error: %s: this is a fault of Edgewright, not yours", request.step
        )
        return EdgewrightError.exit_code
    print(result.model_dump_json(indent=1) if options.json else f"{request.step}: {result.state}")
    return 0


def _terminate(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is being saved now shall not be cut off by a second one
    raise Terminated


def _read(place: str) -> str:
    if place == "-":
        return sys.stdin.read()
    if "://" in place:
        with fsspec.open(place, "r") as file:
            return str(file.read())
    return Path(place).read_text()


if __name__ == "__main__":
    sys.exit(main())
