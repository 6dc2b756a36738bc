"""Jars from Maven Central, by the machine's own Maven: exact versions, checked digests, kept outside of the work tree.

A lock below ``jars/`` names every jar of a server with its version and sha256, those that others depend on too. Maven
gets exactly these, they are checked, and the finished folder appears in one step, so that two who start at the same
time, or one who is interrupted, cannot leave half of it behind.

``python -m edgewright.cli.dev.maven NAME`` makes a lock anew from the roots in its first line.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from edgewright.errors import ConfigError, DamagedArtifact, Unavailable

LOCKS = Path(__file__).parent / "jars"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
#: Copies without reading what jars depend on; newer ones read it, and fail where a parent's description is missing.
_COPIER = "org.apache.maven.plugins:maven-dependency-plugin:2.10"
_LISTED = re.compile(r"^\s+([\w.-]+):([\w.-]+):jar:(?:([\w.-]+):)?([\w.-]+):(?:compile|runtime)\b")
#: Seconds that Maven may take; a slow line needs minutes for the 70 MB of Cassandra.
_PATIENCE = 900


@dataclass(frozen=True)
class Jar:
    """One jar: its coordinates and its digest."""

    group: str
    artifact: str
    version: str
    classifier: str = ""
    sha256: str = ""
    kind: str = "jar"

    @classmethod
    def parse(cls, coordinates: str, sha256: str = "") -> Jar:
        """Read ``group:artifact:version[:classifier][@kind]``; the kind ``tar.gz`` is unpacked."""
        coordinates, _, kind = coordinates.partition("@")
        group, artifact, version, *classifier = coordinates.split(":")
        return cls(group, artifact, version, "".join(classifier), sha256, kind or "jar")

    @property
    def file(self) -> str:
        """Name of the file, as Maven writes it."""
        return f"{self.artifact}-{self.version}{f'-{self.classifier}' if self.classifier else ''}.{self.kind}"

    def __str__(self) -> str:
        text = f"{self.group}:{self.artifact}:{self.version}"
        text = f"{text}:{self.classifier}" if self.classifier else text
        return text if self.kind == "jar" else f"{text}@{self.kind}"

    def xml(self, element: str) -> str:
        """Return the jar as an XML element of a pom."""
        fields = {"groupId": self.group, "artifactId": self.artifact, "version": self.version, "type": self.kind}
        if self.classifier:
            fields["classifier"] = self.classifier
        inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
        return f"<{element}>{inner}</{element}>"


def cache_folder() -> Path:
    """Return the folder for what is downloaded: ``EDGEWRIGHT_CACHE``, or the user's cache folder."""
    if os.environ.get("EDGEWRIGHT_CACHE"):
        return Path(os.environ["EDGEWRIGHT_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgewright"


def read_lock(name: str) -> list[Jar]:
    """Return the jars of a lock."""
    lines = (LOCKS / f"{name}.txt").read_text().splitlines()
    return [Jar.parse(*line.split()) for line in lines if line and not line.startswith("#")]


def jars(name: str) -> Path:
    """Return a folder with exactly the jars of a lock, downloading them where they are not there yet.

    Args:
        name: Name of the lock, such as ``kafka``.

    Raises:
        ConfigError: there is no Maven.
        Unavailable: Maven could not get them.
        DamagedArtifact: a jar is not what the lock says.
    """
    folder = folder_of(name)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f".{folder.name}.lock"):
        if folder.is_dir():
            return folder
        wanted = read_lock(name)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            temporary.chmod(0o755)  # another user may run the server
            _copy(wanted, temporary / "libs")
            _check(wanted, temporary / "libs")
            _unpack(wanted, temporary / "libs")
            (temporary / "libs").replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def folder_of(name: str) -> Path:
    """Return where the jars of a lock are, or would be: another lock means another folder."""
    digest = hashlib.sha256((LOCKS / f"{name}.txt").read_bytes()).hexdigest()
    return cache_folder() / "jars" / f"{name}-{digest[:12]}"


def find_maven() -> str:
    """Return Maven's program.

    Raises:
        ConfigError: there is none.
    """
    found = shutil.which("mvn")
    if found is None:
        raise ConfigError("there is no Maven (mvn) on this machine", hint="Debian: apt install maven")
    return found


def _copy(wanted: Sequence[Jar], folder: Path) -> None:
    """Let Maven put exactly these jars into a folder; it reads no description of what they depend on."""
    group, name, version = _COPIER.split(":")
    plugin = f"<groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version>"
    items = "".join(jar.xml("artifactItem") for jar in wanted)
    settings = f"<configuration><artifactItems>{items}</artifactItems></configuration>"
    body = f"<build><plugins><plugin>{plugin}{settings}</plugin></plugins></build>"
    _maven(folder, body, f"{_COPIER}:copy", f"-DoutputDirectory={folder}")


def _resolve(roots: Sequence[Jar], folder: Path, listing: Path) -> None:
    """Let Maven put jars and all that they depend on into a folder, and list their coordinates in a file."""
    body = f"<dependencies>{''.join(jar.xml('dependency') for jar in roots)}</dependencies>"
    goals = [f"{_PLUGIN}:copy-dependencies", f"-DoutputDirectory={folder}", f"{_PLUGIN}:list"]
    _maven(folder, body, *goals, f"-DoutputFile={listing}", "-DincludeScope=runtime")


def _maven(folder: Path, body: str, *arguments: str) -> None:
    pom = folder.parent / "pom.xml"
    pom.write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>edgewright</groupId><artifactId>jars</artifactId><version>1</version><packaging>pom</packaging>"
        f"{body}</project>"
    )
    command = [find_maven(), "-B", "-q", "-f", str(pom), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"Maven did not end within {_PATIENCE} s", hint="try again: it keeps what it has") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
        raise Unavailable(
            "Maven could not get the jars: " + (lines[0].split("ERROR]")[-1].strip() if lines else "no reason given"),
            hint="they come from Maven Central; behind a proxy or a mirror, say so in ~/.m2/settings.xml",
        )


def _check(wanted: Sequence[Jar], folder: Path) -> None:
    for jar in wanted:
        file = folder / jar.file
        if not file.is_file():
            raise DamagedArtifact("Maven did not bring it", where=str(jar))
        if sha256(file) != jar.sha256:
            raise DamagedArtifact("its sha256 is not what the lock says", where=str(jar))


def _unpack(wanted: Sequence[Jar], folder: Path) -> None:
    for jar in wanted:
        if jar.kind == "tar.gz":
            with tarfile.open(folder / jar.file) as archive:
                archive.extractall(folder, filter="data")
            (folder / jar.file).unlink()


def sha256(file: Path) -> str:
    """Return the hex digest of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_lock(name: str) -> int:
    """Make a lock anew from the roots in its first line; return the number of jars."""
    path = LOCKS / f"{name}.txt"
    first = path.read_text().splitlines()[0]
    roots = [Jar.parse(text) for text in first.removeprefix("# roots:").split()]
    with tempfile.TemporaryDirectory() as temporary:
        folder, listing = Path(temporary) / "libs", Path(temporary) / "list.txt"
        if all(root.kind == "jar" for root in roots):
            _resolve(roots, folder, listing)
            found = [match.groups() for match in map(_LISTED.match, listing.read_text().splitlines()) if match]
            resolved = [Jar(group, name, version, classifier or "") for group, name, classifier, version in found]
        else:  # an archive has everything in it that it needs
            resolved = roots
            _copy(roots, folder)
        lines = sorted(f"{jar} {sha256(folder / jar.file)}" for jar in resolved)
    path.write_text("\n".join([first, *lines]) + "\n")
    return len(lines)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(f"{argument}: {write_lock(argument)} jars")
