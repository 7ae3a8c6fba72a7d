"""
Refuse a file that holds what could be a Solana private key: base58 of 64 bytes whose halves belong together.

A signature has 64 bytes as well, but its second half is not the public key of the first. The throwaway keys of the
test vectors are known to everybody already.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import base58
from nacl.signing import SigningKey

_CANDIDATE = re.compile(r"[1-9A-HJ-NP-Za-km-z]{80,90}")
_PEM = "-----BEGIN " + "PRIVATE KEY"
_VECTORS = Path(__file__).parents[1] / "tests" / "vectors" / "signing.json"


def is_keypair(text: str) -> bool:
    """Say whether base58 text is a 64-byte Ed25519 keypair."""
    raw: bytes = base58.b58decode(text)
    return len(raw) == 64 and bytes(SigningKey(raw[:32]).verify_key) == raw[32:]


def holds_key(path: str, known: set[str]) -> bool:
    """Say whether a file holds a PEM private key, or a keypair that is not among the known ones."""
    text = Path(path).read_text(errors="replace")
    return _PEM in text or any(word not in known and is_keypair(word) for word in _CANDIDATE.findall(text))


def main(paths: list[str]) -> int:
    """Print each offending file, never the key; 1 if there is one."""
    known = {vector["secret_key_base58"] for vector in json.loads(_VECTORS.read_text())["vectors"]}
    found = [path for path in paths if holds_key(path, known)]
    for path in found:
        print(f"{path}: holds a private key")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
