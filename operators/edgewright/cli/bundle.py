"""``edgewright bundle``: one variant of a registered model as one file for a node, signed where a key is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from edgewright.registry import Registry
    from edgewright.registry.versions import RegisteredVersion


@click.command("bundle")
@click.argument("model")
@click.option("--target", required=True, help="Which variant, such as onnx-int8.")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Default: NAME-VERSION-TARGET.tar"
)
@click.option("--sign", "key", type=click.Path(path_type=Path), help="Private elliptic-curve key in PEM.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(model: str, target: str, output: Path | None, key: Path | None, as_json: bool) -> None:
    """Write a variant of MODEL (NAME, NAME@ALIAS or NAME/VERSION) with its manifest and self-test into one file.

    The same registered version gives the same bytes; a signature beside them differs each time.
    """
    import tempfile

    from edgewright.artifacts.digest import sha256_file
    from edgewright.bundles import build_bundle, write_archive
    from edgewright.bundles.pack import SIGNATURE
    from edgewright.bundles.signing import sign
    from edgewright.cli.output import print_json
    from edgewright.installation import Installation
    from edgewright.registry import Registry

    registry = Registry(Installation.load().tracking_uri)
    found = find_version(registry, model)
    with tempfile.TemporaryDirectory(prefix="edgewright-bundle-") as scratch:
        release = registry.download(found, Path(scratch))
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        manifest = build_bundle(release, folder, target=target, version=found.version)
        if key is not None:
            signature = Path(scratch) / SIGNATURE
            sign(folder, signature, private_key=key)
            signature.rename(folder / SIGNATURE)
        path = output or Path(f"{found.name}-{found.version}-{target}.tar")
        write_archive(folder, path)
    if as_json:
        told = {"path": str(path), "sha256": sha256_file(path), "signed": key is not None}
        print_json({**told, **{name: manifest[name] for name in ("name", "version", "target", "release")}})
        return
    click.echo(f"{path}: {found.name} version {found.version}, {target}, {path.stat().st_size:,} bytes")
    click.echo(f"sha256 {sha256_file(path)}, {'signed' if key else 'not signed'}")


def find_version(registry: Registry, model: str) -> RegisteredVersion:
    """Return the version that ``NAME``, ``NAME@ALIAS`` or ``NAME/VERSION`` means; a name alone means its champion.

    Raises:
        ConfigError: it is none of these.
        NotFound: there is no such model, alias or version.
    """
    name, slash, version = model.partition("/")
    if slash and version:
        return registry.version(name, version)
    name, _, alias = model.partition("@")
    if not name or slash:
        raise ConfigError(f"not a model: {model}", hint="write NAME, NAME@ALIAS or NAME/VERSION")
    found = registry.champion(name, alias or "champion")
    if found is None:
        raise NotFound(f"{name} has no {alias or 'champion'}", hint=f"name a version: {name}/1")
    return found
