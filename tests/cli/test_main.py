"""The command line as a whole: help, usage, exit codes, crashes, completion."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgewright.cli import main as main_module
from edgewright.cli.main import COMMANDS, SECTIONS, cli
from edgewright.errors import ConfigError, Unavailable

BRACELET = Path(__file__).parents[2] / "dags" / "bracelet"

EDGEWRIGHT = [sys.executable, "-m", "edgewright.cli.main"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EDGEWRIGHT_DEBUG", raising=False)
    return tmp_path / "home"


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch):
    """Add a command that raises what the test wants."""
    module = type(sys)("edgewright_test_command")
    monkeypatch.setitem(sys.modules, "edgewright_test_command", module)
    monkeypatch.setitem(main_module.COMMANDS, "broken", ("edgewright_test_command:command", "Breaks."))

    def with_error(error: BaseException) -> None:
        @click.command("broken")
        def command() -> None:
            raise error

        module.command = command  # type: ignore[attr-defined]

    return with_error


def test_help_lists_every_command_in_a_section():
    text = CliRunner().invoke(cli, ["--help"]).output
    assert "Exit codes" in text
    for name, (_, help_text) in COMMANDS.items():
        assert name in text
        assert help_text[:25] in text
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_of_the_table_exists_and_explains_itself(name: str):
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert command.help


def test_help_imports_no_heavy_library_and_is_quick():
    code = (
        "import sys, edgewright.cli.main as m\n"
        "try: m.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'airflow', 'mlflow', 'pandas', 'numpy', 'sklearn', 'pydantic', 'yaml', 'rich', 'fsspec'}\n"
        "print('HEAVY', sorted(set(sys.modules) & heavy))"
    )
    clock = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert time.perf_counter() - clock < 5


def test_version():
    result = CliRunner().invoke(cli, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("edgewright 0.")


def test_unknown_command_is_usage_and_suggests():
    result = CliRunner().invoke(cli, ["chek"])
    assert result.exit_code == 2
    assert 'no such command: chek; did you mean "check"?' in result.output


def test_unknown_option_is_usage():
    assert CliRunner().invoke(cli, ["run", "--frob"]).exit_code == 2


def test_no_command_shows_the_help():
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 2
    assert "Pipelines:" in result.output


def test_user_fault_is_one_line_with_a_hint(home: Path, broken):
    broken(ConfigError("alpha is wrong", where="with.args", hint="write a number"))
    result = CliRunner().invoke(cli, ["broken"])
    assert result.exit_code == 1
    assert result.stderr == "error: with.args: alpha is wrong\n  hint: write a number\n"


def test_unavailable_service_has_its_own_code(home: Path, broken):
    broken(Unavailable("nobody answers", where="http://127.0.0.1:1"))
    assert CliRunner().invoke(cli, ["broken"]).exit_code == 69


def test_a_crash_says_that_it_is_ours_and_keeps_the_traceback(home: Path, broken):
    broken(ZeroDivisionError("division by zero"))
    result = CliRunner().invoke(cli, ["broken"])
    assert result.exit_code == 70
    assert "a fault of Edgewright, not yours: ZeroDivisionError: division by zero" in result.stderr
    assert "Traceback" not in result.stderr
    (kept,) = (home / "logs").glob("crash-*.txt")
    assert str(kept) in result.stderr
    assert "Traceback" in kept.read_text()


def test_debug_shows_the_traceback(home: Path, broken, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGEWRIGHT_DEBUG", "")
    broken(ZeroDivisionError("division by zero"))
    result = CliRunner().invoke(cli, ["--debug", "broken"])
    assert result.exit_code == 70
    assert "Traceback" in result.stderr


def test_ctrl_c_is_130(home: Path, broken):
    broken(KeyboardInterrupt())
    result = CliRunner().invoke(cli, ["broken"])
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_errors_are_coloured_only_on_a_terminal(home: Path, broken, monkeypatch: pytest.MonkeyPatch):
    broken(ConfigError("wrong"))
    assert "\x1b[" not in CliRunner().invoke(cli, ["broken"]).stderr
    assert "\x1b[" in CliRunner().invoke(cli, ["broken"], color=True).stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in CliRunner().invoke(cli, ["broken"], color=True).stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str):
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_EDGEWRIGHT_COMPLETE" in result.output


def test_pressing_tab_completes_commands():
    environment = {
        **os.environ,
        "_EDGEWRIGHT_COMPLETE": "bash_complete",
        "COMP_WORDS": "edgewright sch",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(EDGEWRIGHT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "plain,schema"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", str(BRACELET), "--until", "q"), "quality"),
        (("run", str(BRACELET), "--param", "al"), "alpha="),
        (("plan", "--against", "air"), "airflow"),
        (("render", "--format", "sv"), "svg"),
    ],
)
def test_pressing_tab_completes_values(words: tuple[str, ...], expected: str):
    line = {"COMP_WORDS": " ".join(["edgewright", *words]), "COMP_CWORD": str(len(words))}
    done = CliRunner().invoke(cli, [], env={"_EDGEWRIGHT_COMPLETE": "bash_complete", **line}, prog_name="edgewright")
    assert done.output.strip() == f"plain,{expected}"
