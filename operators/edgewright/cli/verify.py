"""``edgewright verify``: open a bundle without trusting it, and say what was checked."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="Public key that must have signed it.")
@click.option("--no-run", is_flag=True, help="Do not try the model.")
@click.option("--into", type=click.Path(path_type=Path), help="Keep the files in this new folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(bundle: Path, key: Path | None, no_run: bool, into: Path | None, as_json: bool) -> None:
    """Check the signature, every sum, what the model is made of, and that it answers as it did.

    The model is tried in a process of its own with bounds on memory and time.
    """
    import tempfile

    from edgewright.bundles import open_bundle
    from edgewright.cli.output import print_json
    from edgewright.errors import ConfigError

    if into is not None and into.exists():
        raise ConfigError(f"{into} exists already", where="--into", hint="name a new folder")
    with tempfile.TemporaryDirectory(prefix="edgewright-verify-") as scratch:
        folder = into or Path(scratch) / "bundle"
        found = open_bundle(bundle, folder, public_key=key, run=not no_run)
    manifest = found.manifest
    if as_json:
        told = {name: manifest[name] for name in ("name", "version", "target", "release", "verified")}
        print_json({**told, "signed": found.signed, "checks": found.checks})
        return
    click.echo(f"{manifest['name']} version {manifest['version']}, {manifest['target']}")
    for check in found.checks:
        click.echo(f"  {check}")
    if not found.signed:
        click.echo("nobody vouches for it: give --key to compare the signature", err=True)
