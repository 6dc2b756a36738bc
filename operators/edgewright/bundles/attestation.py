"""What a signature of OpenSSF model signing says, checked with ``cryptography`` alone.

The library that signs brings 45 MB of clients for services that a node never asks, so a node reads the signature
itself: a sigstore bundle (v0.3) around a DSSE envelope (https://github.com/secure-systems-lab/dsse, protocol 1.0)
around an in-toto statement that lists every file with its sha256. Only that form is read; older ones are refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.artifacts.digest import sha256_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_LARGEST = 16 << 20


def load_key(data: bytes) -> EllipticCurvePublicKey:
    """Read a public key in PEM.

    Raises:
        ValueError: it is none, or not one on P-256, P-384 or P-521.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(data)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
        raise ValueError("an elliptic-curve key on P-256, P-384 or P-521 is needed")
    return key


def check(folder: Path, signature: bytes, key: EllipticCurvePublicKey) -> None:
    """Compare all files of a folder with what was signed.

    Raises:
        ValueError: the signature is none, another key made it, or files differ; all of them are named.
    """
    signed = _resources(_payload(signature, key))
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    apart = found ^ set(signed)
    apart |= {name for name in found & set(signed) if sha256_file(folder / name) != signed[name]}
    if apart:
        raise ValueError(", ".join(sorted(apart))[:200])


def _payload(signature: bytes, key: EllipticCurvePublicKey) -> bytes:
    """Return the statement's bytes once the key is known to have signed them."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    if len(signature) > _LARGEST:
        raise ValueError("it is too large to be one")
    try:
        envelope = json.loads(signature)["dsseEnvelope"]
        (entry,) = envelope["signatures"]
        kind, payload = str(envelope["payloadType"]), base64.b64decode(envelope["payload"], validate=True)
        made = base64.b64decode(entry["sig"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no signature") from error
    if kind != _PAYLOAD:
        raise ValueError(f"it signs something else: {kind[:80]}")
    size = key.curve.key_size
    algorithm = hashes.SHA256() if size == 256 else hashes.SHA384() if size == 384 else hashes.SHA512()
    text = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    try:
        key.verify(made, text, ECDSA(algorithm))
    except InvalidSignature:
        raise ValueError("another key made it") from None
    return payload


def _resources(payload: bytes) -> dict[str, str]:
    """Return the signed files with their sha256."""
    try:
        statement: Any = json.loads(payload)
        (subject,) = statement["subject"]
        resources = statement["predicate"]["resources"]
        named = {str(item["name"]): str(item["digest"]) for item in resources}
        whole = hashlib.sha256(b"".join(bytes.fromhex(item["digest"]) for item in resources)).hexdigest()
        plain = {item["algorithm"] for item in resources} == {"sha256"}
        kinds = (statement["_type"], statement["predicateType"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no statement about files") from error
    if kinds != (_STATEMENT, _PREDICATE) or not plain or len(named) != len(resources):
        raise ValueError("it is no statement about files with their sha256")
    if subject["digest"].get("sha256") != whole:
        raise ValueError("it contradicts itself")
    return named
