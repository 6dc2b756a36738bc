"""Airflow 3.4 loads our files by itself, through its importer interface. Nothing here works on 3.3.

Enable it with::

    [dag_processor]
    dag_importer_configs = [{"classpath": "edgewright.factory.importer.PipelineImporter"}]

Every fault becomes an import error of its own, with its line, column and suggestion. Plain Airflow YAML Dags are read
too: their grammar is part of ours.
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

from edgewright.errors import EdgewrightError, Fault, SpecError
from edgewright.factory.dag import build_dag
from edgewright.spec import parse_pipeline

if TYPE_CHECKING:
    from airflow.dag_processing.bundles.base import BaseDagBundle
    from airflow.sdk.importers.base import DagDefinition

#: Files that are read by pipelines and are none.
_NOT_PIPELINES = {"defaults.yaml", "defaults.yml"}


class PipelineImporter(AbstractDagImporter[FilesystemDagDefinition]):  # type: ignore[misc]
    """Reads every YAML file that names a ``dag_id`` or our schema as one pipeline."""

    supported_extensions = [".yaml", ".yml"]

    def can_handle(self, definition: DagDefinition | str | Path) -> bool:
        """Whether the name ends like a YAML file's."""
        return get_file_suffix(definition) in self.supported_extensions

    def list_dag_definitions(
        self, bundle: BaseDagBundle, *, safe_mode: bool = True
    ) -> Iterator[FilesystemDagDefinition | DagImportError]:
        """Yield the pipelines' files of a bundle; ``.airflowignore`` is honoured."""
        for definition in find_file_dag_definitions(bundle.path, self.supported_extensions):
            if definition.path.name not in _NOT_PIPELINES and self.might_contain_dag(definition, safe_mode):
                yield definition

    def might_contain_dag(self, definition: DagDefinition, safe_mode: bool) -> bool:
        """Whether the text speaks of a Dag; a file that cannot be read is kept, so that its error is seen."""
        if not safe_mode:
            return True
        try:
            data: bytes = definition.read_bytes()
        except OSError:
            return True
        return b"dag_id" in data or b"edgewright.dev/schema" in data

    def import_definition(self, definition: FilesystemDagDefinition, bundle: BaseDagBundle) -> DagImportResult:
        """Build the Dag of one file, or say everything that is wrong with it."""
        result = DagImportResult(definition=definition)
        place = definition.get_relative_loc(bundle.path)
        try:
            pipeline = parse_pipeline(definition.read_text(), definition.path, shown=place)
            dag: Any = build_dag(pipeline)
        except SpecError as error:
            result.errors.extend(_import_error(definition, fault) for fault in error.faults)
        except (EdgewrightError, OSError, ValueError) as error:
            result.errors.append(DagImportError(source_reference=repr(definition), message=str(error)))
        else:
            dag.bundle_name = bundle.name
            dag.fileloc = repr(definition)
            dag.relative_fileloc = place
            result.dags.append(dag)
        return result

    def get_source_code(self, definition: DagDefinition, dag_id: str | None = None) -> DagSourceCode:
        """Return the YAML text for the code view."""
        return DagSourceCode(source_code=definition.read_text(), language="yaml")


def _import_error(definition: FilesystemDagDefinition, fault: Fault) -> DagImportError:
    message = f"{fault.path}: {fault.message}" if fault.path else fault.message
    return DagImportError(
        source_reference=repr(definition),
        message=f"{message}; {fault.allowed}" if fault.allowed else message,
        error_type=fault.code,
        line_number=fault.line,
        column_number=fault.column,
        suggestion=f'did you mean "{fault.suggestion}"?' if fault.suggestion else None,
    )
