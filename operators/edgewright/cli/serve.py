"""``edgewright serve``: the prediction service in the foreground."""

from __future__ import annotations

import sys

import click

from edgewright.installation import Installation


@click.command("serve", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the prediction service; the home folder and MLflow's address come from the installation unless given."""
    from edgewright.serving.__main__ import main

    given = list(arguments)
    if not {"-h", "--help"} & set(given):
        installation = Installation.load()
        defaults = {
            "--home": str(installation.home / "serving" / "foreground"),
            "--tracking-uri": installation.tracking_uri,
        }
        given += _feature_log(installation, given)
        for option, value in defaults.items():
            if not any(text == option or text.startswith(f"{option}=") for text in given):
                given += [option, value]
    sys.exit(main(given))


def _feature_log(installation: Installation, given: list[str]) -> list[str]:
    """Return the installation's feature log as options, where none was given."""
    named = any(text.split("=")[0] == "--feature-log" for text in given)
    return [] if named or installation.feature_log is None else installation.feature_log.options()
