"""``edgewright completion``: the script that makes a shell complete commands, options, task names and runs."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    r"""Print the completion script of a shell.

    \b
    bash:  eval "$(edgewright completion bash)"   # in ~/.bashrc
    zsh:   eval "$(edgewright completion zsh)"    # in ~/.zshrc, after compinit
    fish:  edgewright completion fish > ~/.config/fish/completions/edgewright.fish
    """
    from edgewright.cli.main import cli

    shell_class = get_completion_class(shell)
    assert shell_class is not None
    click.echo(shell_class(cli, {}, "edgewright", "_EDGEWRIGHT_COMPLETE").source())
