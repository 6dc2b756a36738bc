"""Try a bundle's model on its golden rows, in a child process with bounds on memory and time.

``python -m edgewright.bundles.selftest FOLDER`` is the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgewright.bundles.limits import Limits
from edgewright.bundles.pack import GOLDEN, MANIFEST
from edgewright.errors import DeployRejected, EdgewrightError


def run_self_test(folder: Path, limits: Limits) -> int:
    """Return how many rows were answered as they should be.

    Raises:
        DeployRejected: the model does not load, does not answer in time or within the memory, or answers differently.
    """
    command = [sys.executable, "-m", "edgewright.bundles.selftest", str(folder), str(limits.memory_gib)]
    environ = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG", "HOME")}
    process = subprocess.Popen(  # noqa: S603 (our own arguments, no shell)
        [*command, str(limits.golden_rows)], env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True, text=True,
    )  # fmt: skip
    try:
        text, _ = process.communicate(timeout=limits.seconds)
    except subprocess.TimeoutExpired:
        raise DeployRejected(f"the model did not answer its self-test within {limits.seconds:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    answer = _answer(text)
    if answer is None:
        raise DeployRejected("the model ended the process that tried it", hint="do not use this bundle")
    if "refused" in answer:
        raise DeployRejected(f"the self-test failed: {answer['refused']}")
    return int(answer["rows"])


def _answer(text: str) -> dict[str, Any] | None:
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def main(folder: Path, memory_gib: float, most: int) -> dict[str, Any]:
    """Run the model on the golden rows; return the child's answer."""
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    import numpy as np

    from edgewright.bundles.loading import load_model
    from edgewright.serving.model import TOLERANCE, golden_arrays

    golden = json.loads((folder / GOLDEN).read_bytes())
    if not golden["inputs"] or len(golden["inputs"]) > most:
        return {"refused": f"it has {len(golden['inputs'])} rows; 1 to {most} are run"}
    manifest = json.loads((folder / MANIFEST).read_bytes())
    model = load_model(folder, manifest)
    scores = np.asarray(model.run(golden_arrays(model, golden["inputs"]))[1], dtype=np.float64)
    expected = np.asarray(golden["outputs"], dtype=np.float64)
    if scores.shape != expected.shape or not np.isfinite(scores).all():
        return {"refused": f"it gives {list(scores.shape)} scores, or some that are no numbers"}
    size = 1.0 if manifest["problem"] == "classification" else max(1.0, float(np.abs(expected).max()))
    apart = float(np.abs(scores - expected).max()) / size
    # processors round 8-bit sums differently
    allowed = TOLERANCE["integer" if "integer_nodes" in manifest["toolchain"]["details"] else "float"]
    if apart > allowed:
        return {"refused": f"a score differs by {apart:.3g} from the published one (at most {allowed:g})"}
    return {"rows": len(expected)}


if __name__ == "__main__":
    try:
        found = main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
    except MemoryError:
        found = {"refused": f"it needs more than {sys.argv[2]} GiB"}
    except (EdgewrightError, ValueError, KeyError, TypeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        found = {"refused": lines[0][:500]}
    except Exception as error:
        found = {"refused": f"{type(error).__name__}: {str(error)[:300]}"}
    sys.stdout.write(json.dumps(found) + "\n")
