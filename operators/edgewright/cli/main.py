"""``edgewright``: the command line. Commands are imported only when they run, so that help and completion are quick."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from edgewright import __version__

#: Every command: ``name: (module:attribute, one line for --help)``. Add a row to add a command.
COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("edgewright.cli.check:command", "Validate pipelines; every fault at once, with its place."),
    "schema": ("edgewright.cli.schema:command", "Print the JSON Schema of the pipeline language."),
    "run": ("edgewright.cli.run:command", "Run a pipeline here and now, in one process."),
    "plan": ("edgewright.cli.plan:command", "Say what changes of pipelines do, against a git revision."),
    "render": ("edgewright.cli.render:command", "Show a pipeline as Airflow YAML, Python, a graph or a page."),
    "new": ("edgewright.cli.new:command", "Make a pipeline around a CSV file."),
    "convert": ("edgewright.cli.convert:command", "Convert dag-factory YAML to pipelines."),
    "docs": ("edgewright.cli.docs:command", "Write a page per pipeline, and an index."),
    "why": ("edgewright.cli.why:command", "Say why a task ran again, or what was reused."),
    "debug": ("edgewright.cli.debug:command", "Answer again, here, what a task of a run was asked."),
    "events": ("edgewright.cli.events:command", "Show batches of events, and start them again."),
    "data": ("edgewright.cli.data:command", "Show, compare and profile versions of datasets."),
    "gc": ("edgewright.cli.gc:command", "Remove artifacts and runs that nothing needs any more."),
    "sweep": ("edgewright.cli.sweep:command", "Remove pods of steps that nobody waits for any more."),
    "up": ("edgewright.cli.up:command", "Start the local stack: Airflow, MLflow, the prediction service."),
    "down": ("edgewright.cli.down:command", "Stop the local stack."),
    "status": ("edgewright.cli.status:command", "Say what of the local stack runs, and where."),
    "trigger": ("edgewright.cli.trigger:command", "Start a run of a pipeline in Airflow."),
    "demo": ("edgewright.cli.demo:command", "Run the heart-disease pipeline through a real Airflow."),
    "bundle": ("edgewright.cli.bundle:command", "Write a variant of a model as one signed file for a node."),
    "verify": ("edgewright.cli.verify:command", "Check a bundle without trusting it."),
    "edge": ("edgewright.cli.edge:command", "Run a node: the newest bundle of a target, proven, over HTTP and MQTT."),
    "fleet": ("edgewright.cli.fleet:command", "Show which node runs which version, and when it was heard of."),
    "serve": ("edgewright.cli.serve:command", "Run the prediction service in the foreground."),
    "privacy": ("edgewright.cli.privacy:command", "Pseudonyms of people; erase a person."),
    "score": ("edgewright.cli.score:command", "Score files of any size with a registered model."),
    "sink": ("edgewright.cli.sink:command", "Store what comes through Kafka: rows in Cassandra, reports of nodes."),
    "bridge": ("edgewright.cli.bridge:command", "Carry messages of MQTT devices to Kafka."),
    "webhook": ("edgewright.cli.webhook:command", "Take webhooks of MLflow: registry triggers look at once."),
    "dev": ("edgewright.cli.dev.command:command", "Run a real Kafka, Cassandra, S3, Postgres or MQTT on loopback."),
    "init": ("edgewright.cli.init:command", "Write what an installation needs before its first start."),
    "doctor": ("edgewright.cli.doctor:command", "Say what of this installation works."),
    "completion": ("edgewright.cli.completion:command", "Print the completion script of a shell."),
}
#: Shown apart in --help, in this order.
SECTIONS: dict[str, tuple[str, ...]] = {
    "Pipelines": (
        "new",
        "check",
        "plan",
        "run",
        "why",
        "debug",
        "render",
        "docs",
        "convert",
        "schema",
        "data",
        "gc",
        "sweep",
    ),
    "The local stack": ("up", "down", "status", "trigger", "demo", "serve", "dev"),
    "Predictions": ("score",),
    "Events": ("events", "sink", "bridge", "webhook"),
    "On the edge": ("bundle", "verify", "edge", "fleet"),
    "This installation": ("init", "doctor", "privacy", "completion"),
}
EPILOG = (
    "Exit codes: 0 done, 1 something to mend (the pipeline, the data, your code, a gate), 2 wrong usage, "
    "69 a service does not answer, 70 a fault of ours or of the machine, 75 another command is at work, "
    "130 interrupted."
)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and whose errors end as one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names without importing them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command by name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from edgewright.cli.output import did_you_mean

            ctx.fail(f"no such command: {args[0]}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, from the table alone."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, COMMANDS[name][1]) for name in names])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete command names from the table, so that pressing Tab imports nothing."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=row[1]) for name, row in COMMANDS.items() if name.startswith(incomplete)]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; in standalone mode every outcome is an exit code, and no error is a traceback."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name or "edgewright", complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = 130
        except Exception as error:
            from edgewright.cli.output import report_error

            code = report_error(error, debug=debug_wanted())
        sys.exit(code if isinstance(code, int) else 0)


def debug_wanted() -> bool:
    """Return whether the user asked for tracebacks."""
    context = click.get_current_context(silent=True)
    asked = bool(context and context.find_root().params.get("debug"))
    return asked or os.environ.get("EDGEWRIGHT_DEBUG", "") not in ("", "0")


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    # through the environment, because the context is gone by the time an error is reported
    if value:
        os.environ["EDGEWRIGHT_DEBUG"] = "1"


@click.group(
    "edgewright",
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="edgewright %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, help="Show tracebacks and log lines.")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Machine-learning pipelines in one YAML file, run by Apache Airflow, ending on the edge."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Entry point of the console script."""
    cli.main(prog_name="edgewright")


if __name__ == "__main__":
    main()
