"""The user's code: what a cache key covers, and what happens to its faults."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgewright.errors import DataError, UserCodeError
from edgewright.steps.code import OUTPUT_LIMIT, code_digests, load_entry, user_code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pipeline.yaml").write_text("dag_id: x\n")
    (tmp_path / "README.md").write_text("prose")
    (tmp_path / "model.py").write_text("from helpers import two\nimport lib.deep\n\ndef fit(data):\n    return two()\n")
    (tmp_path / "helpers.py").write_text("def two():\n    return 2\n")
    (tmp_path / "unused.py").write_text("x = 1\n")
    (tmp_path / "weights.json").write_text("{}")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("")
    (tmp_path / "lib" / "deep.py").write_text("from . import near\n")
    (tmp_path / "lib" / "near.py").write_text("y = 1\n")
    return tmp_path


def test_the_modules_that_are_imported_and_the_files_that_may_be_read_are_covered(folder: Path) -> None:
    assert sorted(code_digests(folder, ["model.py:fit"])) == [
        "helpers.py",
        "lib/__init__.py",
        "lib/deep.py",
        "lib/near.py",
        "model.py",
        "weights.json",
    ]


def test_a_step_without_user_code_covers_no_files(folder: Path) -> None:
    assert code_digests(folder, []) == {}


@pytest.mark.parametrize(
    "line",
    ["__import__('unused')", "import importlib; importlib.import_module('un' + 'used')", "exec('import unused')"],
)
def test_code_that_imports_by_computed_names_depends_on_every_module(folder: Path, line: str) -> None:
    (folder / "helpers.py").write_text(f"def two():\n    {line}\n")
    assert "unused.py" in code_digests(folder, ["model.py:fit"])


@pytest.mark.parametrize(
    "line",
    [
        "from importlib import import_module as load; load('un' + 'used')",
        "from runpy import run_path; run_path('unused.py')",
        "import subprocess, sys; subprocess.run([sys.executable, 'unused.py'])",
        "import joblib; joblib.load('weights.pkl')",
    ],
)
def test_code_that_runs_modules_by_other_ways_depends_on_every_module(folder: Path, line: str) -> None:
    (folder / "helpers.py").write_text(f"def two():\n    {line}\n")
    assert "unused.py" in code_digests(folder, ["model.py:fit"])


def test_a_module_beside_the_folder_is_covered_and_an_installed_library_is_not(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path_factory.mktemp("dags")
    monkeypatch.syspath_prepend(beside)
    (beside / "house_common.py").write_text("import house_rules.deep\nK = 1\n")
    (beside / "house_rules").mkdir()
    (beside / "house_rules" / "deep.py").write_text("import pydantic\n")
    (folder / "helpers.py").write_text("import house_common, pydantic, os.path\n\ndef two():\n    return 2\n")
    before = code_digests(folder, ["model.py:fit"])
    assert {name for name in before if name.startswith("../")} == {"../house_common.py", "../house_rules/deep.py"}
    (beside / "house_common.py").write_text("K = 2\n")
    after = code_digests(folder, ["model.py:fit"])
    assert after["../house_common.py"] != before["../house_common.py"]
    assert "house_common" not in sys.modules


@pytest.mark.parametrize("name", ["README.md", ".stopwords", "pipeline.yaml"])
def test_prose_hidden_files_and_documents_count_where_the_code_names_them(folder: Path, name: str) -> None:
    (folder / name).write_text("text")
    assert name not in code_digests(folder, ["model.py:fit"])
    (folder / "helpers.py").write_text(f"def two():\n    return open({name!r}).read()\n")
    assert name in code_digests(folder, ["model.py:fit"])


def test_an_edit_of_an_imported_module_changes_the_digests_and_an_edit_of_prose_does_not(folder: Path) -> None:
    before = code_digests(folder, ["model.py:fit"])
    (folder / "README.md").write_text("other prose")
    (folder / "unused.py").write_text("x = 2\n")
    assert code_digests(folder, ["model.py:fit"]) == before
    (folder / "lib" / "near.py").write_text("y = 2\n")
    assert code_digests(folder, ["model.py:fit"]) != before


def test_two_pipelines_may_both_have_a_model_py(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.py").write_text(f"def fit():\n    return {name!r}\n")
        with user_code(tmp_path / name, "model.py:fit"):
            results.append(load_entry(tmp_path / name, "model.py:fit")())
    assert results == ["one", "two"]
    assert "model" not in sys.modules


def test_an_exception_names_the_users_own_line(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("def fit():\n    return 1 / 0\n")
    with (
        pytest.raises(UserCodeError, match="model.py:fit raised ZeroDivisionError") as caught,
        user_code(tmp_path, "model.py:fit"),
    ):
        load_entry(tmp_path, "model.py:fit")()
    assert "model.py:2 in fit: return 1 / 0" in str(caught.value)


def test_sys_exit_does_not_end_the_task_silently(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match=r"called sys.exit\(0\)"), user_code(tmp_path, "model.py:fit"):
        sys.exit(0)


def test_errors_of_ours_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"), user_code(tmp_path, "model.py:fit"):
        raise DataError("no rows")


def test_a_flood_of_output_is_cut_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with user_code(tmp_path, "model.py:fit"):
        for _ in range(100):
            print("x" * 100_000)
    out = capsys.readouterr().out
    assert len(out) < OUTPUT_LIMIT + 1000
    assert "more characters of output dropped" in out


def test_a_missing_function_is_answered_with_what_there_is(folder: Path) -> None:
    with pytest.raises(UserCodeError, match=r"model.py has no train") as caught, user_code(folder, "model.py:train"):
        load_entry(folder, "model.py:train")
    assert "fit" in str(caught.value)


def test_a_file_outside_of_the_folder_is_not_loaded(folder: Path) -> None:
    with pytest.raises(UserCodeError, match="no such file"), user_code(folder, "../x.py:fit"):
        load_entry(folder, "../x.py:fit")


def test_a_file_named_like_a_module_of_pythons_is_refused(tmp_path: Path) -> None:
    (tmp_path / "numbers.py").write_text("def fit(): ...\n")
    with pytest.raises(UserCodeError, match="has the name of a module"), user_code(tmp_path, "numbers.py:fit"):
        load_entry(tmp_path, "numbers.py:fit")
