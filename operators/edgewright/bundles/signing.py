"""Signatures of bundles: OpenSSF model signing with a key of one's own, offline.

The signature lies in the bundle as ``model.sig`` and covers every other file. It is a sigstore bundle, so the command
``model_signing`` checks it as well. Signing needs the extra ``sign``; checking does not.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgewright.bundles import attestation
from edgewright.errors import ConfigError, DamagedArtifact


def _need_library() -> None:
    if importlib.util.find_spec("model_signing") is None or importlib.util.find_spec("OpenSSL") is None:
        raise ConfigError("signatures need the extra sign", hint="pip install 'edgewright[sign]'")


def _need_key(key: Path, kind: str) -> None:
    if not key.is_file():
        raise ConfigError(f"no such {kind}: {key}", hint="openssl ecparam -name prime256v1 -genkey -noout -out key.pem")


def sign(folder: Path, signature: Path, *, private_key: Path) -> None:
    """Sign all files of a folder.

    Args:
        folder: What is signed; the signature must not be in it yet.
        signature: Where to write it.
        private_key: An elliptic-curve key (P-256, P-384, P-521) in PEM.

    Raises:
        ConfigError: the extra ``sign`` is not installed, or the key cannot be used.
    """
    _need_library()
    _need_key(private_key, "private key")
    from model_signing import hashing, signing

    # by default git's own files are left out, and whatever is left out can be put in later
    everything = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    try:
        signing.Config().set_hashing_config(everything).use_elliptic_key_signer(private_key=private_key).sign(
            folder, signature
        )
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            f"the key cannot sign: {error}", where=str(private_key), hint="an elliptic-curve key in PEM, unencrypted"
        ) from error


def verify(folder: Path, signature: Path, *, public_key: Path) -> None:
    """Compare a folder with its signature. Needs only ``cryptography``, so that a node can do it.

    Raises:
        ConfigError: the key is none.
        DamagedArtifact: another key signed it, or a file was added, removed or changed since.
    """
    _need_key(public_key, "public key")
    try:
        key = attestation.load_key(public_key.read_bytes())
    except ValueError as error:
        raise ConfigError(f"not a public key: {error}", where=str(public_key)) from error
    try:
        attestation.check(folder, signature.read_bytes(), key)
    except ValueError as error:
        raise DamagedArtifact(
            f"the signature does not fit: {error}", hint="do not use this bundle; ask whoever signed it"
        ) from error
