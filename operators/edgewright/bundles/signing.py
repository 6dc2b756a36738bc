"""Signatures of bundles: OpenSSF model signing with a key of one's own, offline.

The signature lies in the bundle as ``model.sig`` and covers every other file. It is a sigstore bundle, so the command
``model_signing`` checks it as well. Needs the extra ``sign``.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

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
    """Compare a folder with its signature.

    Raises:
        ConfigError: the extra ``sign`` is not installed, or the key is none.
        DamagedArtifact: another key signed it, or a file was added, removed or changed since.
    """
    _need_library()
    _need_key(public_key, "public key")
    from model_signing import hashing, verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except ValueError as error:
        raise ConfigError(f"not a public key: {error}", where=str(public_key)) from error
    # what the signature itself says must not decide which files are looked at
    everything = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    try:
        verifier.set_hashing_config(everything).verify(folder, signature)
    except Exception as error:  # the library and what it builds on raise many kinds
        # its own text shows digests as bytes, hundreds of characters long
        files = re.findall(r"(?:for|files?:?) '([^']+)'", str(error)) or re.findall(r"'([\w./-]+)'", str(error))
        what = ", ".join(dict.fromkeys(files)) or (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedArtifact(
            f"the signature does not fit: {what[:200]}", hint="do not use this bundle; ask whoever signed it"
        ) from error
