"""What Spark says when something fails, as one error: 200 lines of a JVM's stack say it once, somewhere in between.

Shared by the process that runs Spark and the one that started it, so it imports no PySpark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgewright.errors import EdgewrightError, SystemFault, Unavailable, UserCodeError
from edgewright.steps.code import trace_of

_UNRESOLVED = re.compile(r"unresolved dependency: ([\w.-]+)#([\w.-]+);([\w.-]+): not found")
#: Lines of a JVM and of its package manager that tell people nothing.
_CHATTER = re.compile(
    r"^(\s+at |Caused by:|\.\.\. \d+ more|WARNING: |Using Spark's default|Setting default log level|To adjust logging"
    r"|:: |\s*::|\s+(found|downloading|\[SUCCESSFUL|confs:|modules in use:|-{5,}|\|)|downloading |The jars for the"
    r"|Ivy Default Cache|[\w.-]+#[\w.-]+ added as a dependency|The Default Ivy|\d+ artifacts copied|Traceback \(most)"
)
_SPEECHLESS = re.compile(r"^\s*$")
#: Words of Java's exceptions which mean that a service did not answer.
_AWAY = re.compile(
    r"ConnectException|Connection refused|UnknownHostException|NoRouteToHost|SocketTimeout"
    r"|org\.apache\.kafka\.common\.errors\.\w*(Timeout|Disconnect)|ConnectTimeout|HttpHostConnect"
)
_WORKER_FILE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
_LONGEST = 600


def said(line: str) -> bool:
    """Whether a line is worth a place in the task's log."""
    return not _SPEECHLESS.match(line) and not _CHATTER.match(line)


def unresolved(lines: Iterable[str]) -> str | None:
    """Return the package that does not exist, if that is what ended a JVM."""
    for line in lines:
        match = _UNRESOLVED.search(line)
        if match:
            return ":".join(match.groups())
    return None


def fault_of(error: BaseException, entry: str, source: Path | None) -> EdgewrightError:
    """Return a failure of Spark's as an error of ours.

    Args:
        error: What PySpark raised.
        entry: The user's function, or ``sql``.
        source: The pipeline's folder.
    """
    text = str(error)
    where = _place(error, text, source)
    root = _root(error)
    if _AWAY.search(root):
        return Unavailable(f"{entry} could not reach what it reads: {short(root)}", where=where)
    if "stopped SparkContext" in root:
        return Unavailable("the cluster ended the application: its workers could not start what it needs",
                           hint="their logs say why; a cluster of another Spark is a usual reason")  # fmt: skip
    if "OutOfMemoryError" in root:
        return UserCodeError(f"{entry} ran out of Spark's memory: {short(root)}", where=where,
                             hint="spark: {memory: 4g}, or fewer rows at a time: repartition")  # fmt: skip
    if "ClassNotFoundException" in root or "Failed to find data source" in text or "DATA_SOURCE_NOT_FOUND" in text:
        return UserCodeError(
            f"{entry}: Spark lacks what this needs: {short(text if 'data source' in text else root)}", where=where,
            hint="name its package: spark: {packages: [GROUP:ARTIFACT:VERSION]}; connectors have Spark's own version",
        )  # fmt: skip
    python = _python_failure(text)
    if python is not None:
        return UserCodeError(f"{entry}: {python}", where=where, hint="raised in a task, by a function of yours")
    if "Py4JJavaError" in type(error).__name__:
        return SystemFault(f"{entry}: Spark failed: {short(root)}", where=where)
    return UserCodeError(f"{entry}: {short(text)}", where=where, hint=None if where else "Spark's words")


def short(text: str) -> str:
    """Return the first paragraph of what Spark says, in one line."""
    first = re.split(r";\s*\n|\n\n|\n\s*(?:at |== |\+- |'?[A-Z]\w+ \[|JVM stacktrace)", text.strip())[0]
    flat = " ".join(first.split())
    return flat if len(flat) <= _LONGEST else flat[:_LONGEST] + " ..."


def _root(error: BaseException) -> str:
    """Return the innermost cause of a Java exception, else what the error says."""
    java: Any = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    if java is None:
        return str(error)
    causes = [str(java.toString())]
    while java.getCause() is not None and len(causes) < 20:
        java = java.getCause()
        causes.append(str(java.toString()))
    away = next((cause for cause in causes if _AWAY.search(cause)), None)
    return away or causes[-1]


def _python_failure(text: str) -> str | None:
    """Return ``ZeroDivisionError: division by zero`` of a Python worker's traceback in a text."""
    if "Traceback (most recent call last)" not in text:
        return None
    traced = text[text.index("Traceback (most recent call last)") :]
    for line in reversed(traced.splitlines()):
        if re.match(r"^[A-Za-z_][\w.]*(Error|Exception|Warning|Exit|Interrupt|Iteration)\b", line):
            return line.strip()
    return None


def _place(error: BaseException, text: str, source: Path | None) -> str | None:
    """Return file and line of the user's own code: of a worker's traceback, else of the driver's."""
    if source is None:
        return None
    names = {path.name for path in source.rglob("*.py")}
    own = [(file, line) for file, line, _ in _WORKER_FILE.findall(text) if Path(file).name in names]
    if own:
        return f"{Path(own[-1][0]).name}:{own[-1][1]}"
    if not isinstance(error, Exception):
        return None
    traced = re.findall(r"(\S+\.py:\d+) in ", trace_of(error, source))
    return str(traced[-1]) if traced else None
