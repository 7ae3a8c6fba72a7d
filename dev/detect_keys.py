"""
Refuse a file that holds what could be a Solana private key: base58 that decodes to 64 bytes whose halves belong together.

A signature has 64 bytes as well, so the second half must be the public key of the first. Test vectors are throwaway keys.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import base58
from nacl.signing import SigningKey

_CANDIDATE = re.compile(r"[1-9A-HJ-NP-Za-km-z]{80,90}")
_PEM = "-----BEGIN " + "PRIVATE KEY"
_ALLOWED = "tests/vectors/"


def is_keypair(text: str) -> bool:
    """Say whether base58 text is a 64-byte Ed25519 keypair."""
    raw = base58.b58decode(text)
    return len(raw) == 64 and bytes(SigningKey(raw[:32]).verify_key) == raw[32:]


def main(paths: list[str]) -> int:
    """Print each offending file, never the key; 1 if there is one."""
    found = [
        path
        for path in paths
        if not path.startswith(_ALLOWED)
        and (
            any(is_keypair(word) for word in _CANDIDATE.findall(text := Path(path).read_text(errors="replace")))
            or _PEM in text
        )
    ]
    for path in found:
        print(f"{path}: holds a private key")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
