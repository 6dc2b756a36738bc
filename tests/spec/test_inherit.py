"""Defaults of folders, includes, environments and variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright.errors import SpecError
from edgewright.spec import check_tree, load_pipeline, parse_pipeline

INGEST = "{id: data, uses: ingest, with: {source: 's3://x/a.csv', label: y}}"


@pytest.fixture
def dags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of pipelines."""
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGEWRIGHT_ENVIRONMENT", raising=False)
    (tmp_path / "dags" / "team" / "heart").mkdir(parents=True)
    return tmp_path / "dags"


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def heart(dags: Path, text: str = "") -> Path:
    return write(dags / "team/heart/pipeline.yaml", f"dag_id: heart\n{text}\ntasks:\n  - {INGEST}\n")


def test_nearer_defaults_come_over_those_around_them(dags: Path) -> None:
    write(dags / "defaults.yaml", "task_defaults: {retries: 5, owner: all}\ntags: [all]\nmax_active_runs: 3\n")
    write(dags / "team/defaults.yaml", "task_defaults: {owner: team}\ntags: [team]\nparams: {rows: 1}\n")
    pipeline = load_pipeline(heart(dags, "tags: [own]\nmax_active_runs: 1"))
    assert pipeline.task("data").arguments == {"retries": 5, "owner": "team"}
    assert pipeline.arguments["tags"] == ["all", "team", "own"]
    assert pipeline.arguments["max_active_runs"] == 1
    assert pipeline.params["rows"]["default"] == 1
    assert [file.parent.name for file in pipeline.inherited] == ["dags", "team"]


def test_the_search_ends_at_the_pipelines_folder(dags: Path) -> None:
    write(dags.parent / "defaults.yaml", "task_defaults: {retries: 5}\n")
    assert load_pipeline(heart(dags)).task("data").arguments == {}
    write(dags / "defaults.yaml", "task_defaults: {retries: 4, pool: x}\n")
    write(dags / "team/defaults.yaml", "root: true\ntask_defaults: {retries: 3}\n")
    assert load_pipeline(heart(dags)).task("data").arguments == {"retries": 3}


def test_without_a_mark_the_folder_around_the_pipeline_counts(tmp_path: Path) -> None:
    write(tmp_path / "a/defaults.yaml", "task_defaults: {retries: 5}\n")
    write(tmp_path / "a/b/defaults.yaml", "task_defaults: {pool: x}\n")
    pipeline = load_pipeline(write(tmp_path / "a/b/c/p.yaml", f"dag_id: p\ntasks:\n  - {INGEST}\n"))
    assert pipeline.task("data").arguments == {"pool": "x"}


def test_an_edit_of_what_is_inherited_changes_the_digest(dags: Path) -> None:
    file = heart(dags)
    plain = load_pipeline(file).digest
    write(dags / "defaults.yaml", "tags: [a]\n")
    first = load_pipeline(file).digest
    write(dags / "defaults.yaml", "tags: [abc]\n")
    assert len({plain, first, load_pipeline(file).digest}) == 3


def test_a_fault_of_inherited_text_points_there_once_for_all_pipelines(
    dags: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dags.parent)
    write(dags / "defaults.yaml", "tags: [a]\ntask_defaults:\n  retires: 5\n")
    heart(dags)
    write(dags / "other/pipeline.yaml", f"dag_id: other\ntasks:\n  - {INGEST}\n")
    found = [fault for _, result in check_tree([Path("dags")]) for fault in result]  # type: ignore[union-attr]
    assert {(fault.file, fault.line, fault.column) for fault in found} == {("dags/defaults.yaml", 3, 3)}


def test_defaults_hold_no_tasks_and_no_id(dags: Path) -> None:
    write(dags / "defaults.yaml", "dag_id: x\ntasks: []\nroot: maybe\nenvironments: {}\n")
    with pytest.raises(SpecError) as caught:
        load_pipeline(heart(dags))
    assert {fault.message for fault in caught.value.faults} == {
        "defaults hold no tasks", "must be true or false", "dag_id cannot be inherited",
        "environments cannot be inherited",
    }  # fmt: skip


def test_yaml_that_nobody_can_read_is_a_fault_of_that_file(dags: Path) -> None:
    write(dags / "defaults.yaml", "tags: [a\n")
    with pytest.raises(SpecError) as caught:
        load_pipeline(heart(dags))
    assert [Path(fault.file).name for fault in caught.value.faults] == ["defaults.yaml"]


def test_included_tasks_come_first_and_their_faults_are_theirs(dags: Path) -> None:
    write(dags / "common/data.yaml", f"params: {{rows: 1}}\ntasks:\n  - {INGEST}\n")
    text = (
        "dag_id: heart\ninclude: ../../common/data.yaml\ntasks:\n"
        "  - {id: m, uses: train, with: {data: {$x: data}, entry: m.py:f}}\n"
    )
    file = write(dags / "team/heart/pipeline.yaml", text)
    write(dags / "team/heart/m.py", "def f(data): ...\n")
    assert [task.id for task in load_pipeline(file).tasks] == ["data", "m"]
    write(dags / "common/data.yaml", "tasks:\n  - {id: data, uses: ingest, with: {sorce: x}}\n")
    with pytest.raises(SpecError) as caught:
        load_pipeline(file)
    assert {(Path(fault.file).name, fault.line) for fault in caught.value.faults} == {("data.yaml", 2)}


def test_an_include_outside_of_the_pipelines_folder_is_refused(dags: Path) -> None:
    write(dags.parent / "outside.yaml", "tags: [x]\n")
    with pytest.raises(SpecError, match="leads out of the pipelines' folder"):
        load_pipeline(heart(dags, "include: ../../../outside.yaml"))


ENVIRONMENTS = """
schedule: "@daily"
tags: [base]
params: {rows: {type: integer, default: 1000, minimum: 1}}
environments:
  dev: {schedule: null, tags: [dev], params: {rows: 10}, tasks: {data: {retries: 0, with: {label: z}}}}
  prod: {}
"""


def test_the_installation_says_which_environment_it_is(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = heart(dags, ENVIRONMENTS)
    base, prod = load_pipeline(file), load_pipeline(file, environment="prod")
    assert (base.environment, base.schedule, base.task("data").config["label"]) == (None, "@daily", "y")
    assert (prod.environment, prod.schedule) == ("prod", "@daily")
    monkeypatch.setenv("EDGEWRIGHT_ENVIRONMENT", "dev")
    dev = load_pipeline(file)
    assert (dev.environment, dev.schedule, dev.arguments["tags"]) == ("dev", None, ["dev"])
    assert dev.params["rows"] == {"type": "integer", "default": 10, "minimum": 1}
    assert dev.task("data").config == {"source": "s3://x/a.csv", "label": "z"}
    assert dev.task("data").arguments == {"retries": 0}
    assert len({base.digest, prod.digest, dev.digest}) == 3
    assert load_pipeline(file, environment="").digest == base.digest


def test_the_installation_file_says_it_too(dags: Path) -> None:
    write(dags.parent / "home/installation.yaml", "environment: dev\n")
    assert load_pipeline(heart(dags, ENVIRONMENTS)).environment == "dev"


def test_an_environment_that_a_pipeline_does_not_have_is_a_fault_there(
    dags: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_ENVIRONMENT", "prd")
    with pytest.raises(SpecError, match="no such environment: 'prd'.*prod"):
        load_pipeline(heart(dags, ENVIRONMENTS))
    assert load_pipeline(heart(dags)).environment is None  # a pipeline without any is the same everywhere


def test_check_looks_at_all_environments(dags: Path) -> None:
    file = heart(dags, ENVIRONMENTS.replace("label: z", "lable: z"))
    assert load_pipeline(file).tasks
    with pytest.raises(SpecError, match="lable"):
        load_pipeline(file, thorough=True)


def test_a_cached_layer_stays_as_it_is(dags: Path) -> None:
    write(dags / "common.yaml", f"tasks:\n  - {INGEST}\n")
    text = "dag_id: h\ninclude: ../../common.yaml\nenvironments: {dev: {tasks: {data: {with: {label: z}}}}}\n"
    file = write(dags / "team/heart/pipeline.yaml", text)
    assert load_pipeline(file, environment="dev").task("data").config["label"] == "z"
    assert load_pipeline(file, environment="").task("data").config["label"] == "y"


def test_variables_have_their_type_and_are_part_of_the_digest(dags: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
env: {BUCKET: {default: dev}, ROWS: {type: integer, default: 5}, FAST: {type: boolean, default: false}}
max_active_tasks: {$env: ROWS}
catchup: {$env: FAST}
description: {$env: "of ${BUCKET} and ${ROWS}"}
"""
    first = load_pipeline(heart(dags, text))
    assert first.arguments == {"max_active_tasks": 5, "catchup": False, "description": "of dev and 5"}
    monkeypatch.setenv("ROWS", "7")
    monkeypatch.setenv("FAST", "True")
    second = load_pipeline(heart(dags, text))
    assert second.arguments == {"max_active_tasks": 7, "catchup": True, "description": "of dev and 7"}
    assert first.digest != second.digest
    monkeypatch.setenv("ROWS", "many")
    with pytest.raises(SpecError, match="ROWS is 'many', which is no integer"):
        load_pipeline(heart(dags, text))


def test_a_constant_is_never_looked_into(dags: Path) -> None:
    pipeline = parse_pipeline(
        "dag_id: a\nenv: {B: x}\ntasks:\n  - {id: e, uses: airflow.providers.standard.operators.bash.BashOperator,"
        " with: {bash_command: {$const: {$env: B}}}}\n",
        dags / "p.yaml",
    )
    assert pipeline.task("e").config["bash_command"].value == {"$env": "B"}


def test_what_folders_say_of_with_is_merged_one_level_deep(dags: Path) -> None:
    write(dags / "defaults.yaml", "step_defaults: {ingest: {retries: 4, with: {label: z, minimum: {rows: 3}}}}\n")
    write(dags / "team/defaults.yaml", "step_defaults:\n  ingest: {with: {minimum: {per_class: 1}}}\n")
    file = write(dags / "team/heart/pipeline.yaml", "dag_id: heart\nstep_defaults: {ingest: {retries: 1}}\n"
                 "tasks:\n  - {id: data, uses: ingest, with: {source: 's3://x/a.csv'}}\n")  # fmt: skip
    task = load_pipeline(file).task("data")
    assert task.arguments["retries"] == 1
    assert task.config == {"label": "z", "minimum": {"per_class": 1}, "source": "s3://x/a.csv"}
    write(dags / "team/defaults.yaml", "step_defaults:\n  ingest: {with: {minmum: {per_class: 1}}}\n")
    with pytest.raises(SpecError) as caught:
        load_pipeline(file)
    (fault,) = caught.value.faults
    assert (Path(fault.file).parent.name, fault.line, fault.column) == ("team", 2, 19)
