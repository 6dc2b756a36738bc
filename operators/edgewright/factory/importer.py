"""Airflow 3.4 loads our files by itself, through its importer interface. Nothing here works on 3.3.

Enable it with::

    [dag_processor]
    dag_importer_configs = [{"classpath": "edgewright.factory.importer.PipelineImporter"}]

Plain Airflow YAML Dags are read too: their grammar is part of ours. Every fault becomes an import error with its own
line, column and suggestion; Airflow 3.4 keeps one text a file, so each of them carries the whole report as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.importers.base import (
    AbstractDagImporter,
    DagImportError,
    DagImportResult,
    DagSourceCode,
    FilesystemDagDefinition,
    find_file_dag_definitions,
    get_file_suffix,
)

from edgewright.errors import ConfigError, EdgewrightError, Fault, SpecError
from edgewright.factory.dag import dags_of
from edgewright.spec import parse_pipelines
from edgewright.spec.fragments import without_fragments
from edgewright.spec.tree import is_pipeline

if TYPE_CHECKING:
    from airflow.dag_processing.bundles.base import BaseDagBundle
    from airflow.sdk.importers.base import DagDefinition


class PipelineImporter(AbstractDagImporter[FilesystemDagDefinition]):  # type: ignore[misc]
    """Reads every YAML file of a bundle that is a pipeline, by the rules of ``edgewright check``."""

    supported_extensions = [".yaml", ".yml"]

    def can_handle(self, definition: DagDefinition | str | Path) -> bool:
        """Whether the name ends like a YAML file's."""
        return get_file_suffix(definition) in self.supported_extensions

    def list_dag_definitions(
        self, bundle: BaseDagBundle, *, safe_mode: bool = True
    ) -> Iterator[FilesystemDagDefinition | DagImportError]:
        """Yield the pipelines' files of a bundle; ``.airflowignore`` is honoured, hidden folders are left out."""
        found: dict[Path, FilesystemDagDefinition] = {}
        for definition in find_file_dag_definitions(bundle.path, self.supported_extensions):
            place = Path(definition.get_relative_loc(bundle.path))
            hidden = not place.is_absolute() and any(part.startswith(".") for part in place.parts)
            if not hidden and self.might_contain_dag(definition, safe_mode):
                found[Path(definition.path)] = definition
        yield from (found[path] for path in without_fragments(found))

    def might_contain_dag(self, definition: DagDefinition, safe_mode: bool) -> bool:
        """Whether a file is a pipeline. Also without the safe mode: most YAML files are something else."""
        return not isinstance(definition, FilesystemDagDefinition) or is_pipeline(definition.path)

    def import_definition(self, definition: FilesystemDagDefinition, bundle: BaseDagBundle) -> DagImportResult:
        """Build the Dag of one file, or say everything that is wrong with it."""
        result = DagImportResult(definition=definition)
        place = definition.get_relative_loc(bundle.path)
        try:
            dags = _dags(definition, place)
        except SpecError as error:
            result.errors.extend(_import_error(definition, fault, str(error)) for fault in error.faults)
        except EdgewrightError as error:
            result.errors.append(
                DagImportError(source_reference=repr(definition), message=str(error), stacktrace=str(error))
            )
        else:
            for dag in dags:
                dag.bundle_name = bundle.name
                dag.fileloc = repr(definition)
                dag.relative_fileloc = place
                result.dags.append(dag)
        return result

    def get_source_code(self, definition: DagDefinition, dag_id: str | None = None) -> DagSourceCode:
        """Return the YAML text for the code view."""
        return DagSourceCode(source_code=definition.read_bytes().decode(errors="replace"), language="yaml")


def _dags(definition: FilesystemDagDefinition, place: str) -> list[Any]:
    if not isinstance(definition, FilesystemDagDefinition):
        raise ConfigError("a pipeline cannot stand in an archive", where=place,
                          hint="its code and data are read from its folder; put that into the bundle")  # fmt: skip
    try:
        text = definition.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"cannot be read: {reason}", where=place) from error
    return list(dags_of(parse_pipelines(text, definition.path, shown=place), shown=place))


def _import_error(definition: FilesystemDagDefinition, fault: Fault, report: str) -> DagImportError:
    message = f"{fault.path}: {fault.message}" if fault.path else fault.message
    return DagImportError(
        source_reference=repr(definition),
        message=f"{message}; {fault.allowed}" if fault.allowed else message,
        error_type=fault.code,
        line_number=fault.line,
        column_number=fault.column,
        suggestion=f'did you mean "{fault.suggestion}"?' if fault.suggestion else None,
        # what Airflow 3.4.0b2 shows, and it keeps only the last error of a file
        stacktrace=report,
    )
