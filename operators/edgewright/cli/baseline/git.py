"""The pipelines of a git revision, read beside the files that they had then."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgewright.cli.baseline import Version
from edgewright.errors import ConfigError, SpecError
from edgewright.spec.pipeline import Pipeline

_YAML = (".yaml", ".yml")


class GitRevision:
    """A revision of the repository that the working files are in.

    Args:
        roots: Folders and files that are compared.
        revision: A commit, branch or tag.

    Raises:
        ConfigError: they are in no repository, or it has no such revision.
    """

    def __init__(self, roots: list[Path], revision: str) -> None:
        folder = roots[0] if roots[0].is_dir() else roots[0].parent
        top = _git(folder, "rev-parse", "--show-toplevel")
        if top is None:
            hint = "plan compares with a git revision, or with Airflow: --against airflow"
            raise ConfigError("not in a git repository", where=str(folder), hint=hint)
        self._repository = Path(top.decode().strip())
        self._revision = revision
        self._roots = [root.resolve() for root in roots]
        if _git(self._repository, "rev-parse", "--verify", f"{revision}^{{commit}}") is None:
            raise ConfigError(f"no such revision: {revision}", where=str(self._repository))
        self._temporary = tempfile.TemporaryDirectory(prefix="edgewright-plan-")
        self._tree = Path(self._temporary.name) / "tree"

    def __enter__(self) -> GitRevision:
        """Bring the revision's files below the roots, and every document that these may inherit from."""
        self._tree.mkdir()
        (self._tree / ".git").mkdir()  # nothing is inherited from outside
        listed = _git(self._repository, "ls-tree", "-r", "-z", "--name-only", self._revision) or b""
        names = listed.decode(errors="replace").split("\0")
        folders = [root if root.is_dir() else root.parent for root in self._roots]
        places = [place for folder in folders if (place := self._place(folder)) is not None]
        wanted = [name for name in names if name and (name.endswith(_YAML) or _is_below(name, places))]
        for start in range(0, len(wanted), 500):  # a command line holds only so much
            arguments = (
                "--literal-pathspecs",
                "archive",
                "--format=tar",
                self._revision,
                "--",
                *wanted[start : start + 500],
            )
            data = _git(self._repository, *arguments)
            if data is not None:
                with tarfile.open(fileobj=io.BytesIO(data)) as files:
                    files.extractall(self._tree, filter="data")
        return self

    def __exit__(self, *details: object) -> None:
        """Remove them again."""
        self._temporary.cleanup()

    def version(self, path: Path, pipeline: Pipeline) -> Version | None:
        """Return what a file was; one that did not exist, or was not valid, counts as absent."""
        place = self._place(path.resolve())
        found = [] if place is None else self._load(self._tree / place)
        same = [version for version in found if version.pipeline.dag_id == pipeline.dag_id]
        return next(iter([*same, *found]), None)

    def removed(self, roots: list[Path], kept: Mapping[Path, Pipeline]) -> list[Version]:
        """Return the pipelines of files that are gone; one that another file holds now is not."""
        from edgewright.spec import pipeline_files

        gone = [
            path
            for path in pipeline_files([self._tree])
            if not (self._repository / path.relative_to(self._tree)).exists()
            and _is_below(
                path.relative_to(self._tree).as_posix(), [p for r in roots if (p := self._place(r.resolve()))]
            )
        ]
        ids = {pipeline.dag_id for pipeline in kept.values()}
        found = [version for path in gone for version in self._load(path)]
        return [version for version in found if version.pipeline.dag_id not in ids]

    def _place(self, path: Path) -> str | None:
        top = self._repository.resolve()
        return path.relative_to(top).as_posix() if path.is_relative_to(top) else None

    @staticmethod
    def _load(path: Path) -> list[Version]:
        from edgewright.spec import load_pipelines

        try:
            return [Version(pipeline) for pipeline in load_pipelines(path)]
        except (SpecError, ConfigError):
            return []


def references(folder: Path) -> dict[str, str]:
    """Return the branches and tags of the repository around a folder; none where there is none."""
    listed = _git(folder, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags") or b""
    return dict.fromkeys(listed.decode(errors="replace").split(), "branch or tag")


def _is_below(name: str, places: list[str]) -> bool:
    return any(place == "." or name == place or name.startswith(f"{place}/") for place in places)


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return what git prints, or ``None`` where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=60, check=False)
    except FileNotFoundError as error:
        raise ConfigError("git is not installed", hint="--against airflow needs none") from error
    return done.stdout if done.returncode == 0 else None
