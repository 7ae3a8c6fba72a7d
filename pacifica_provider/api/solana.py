"""
What a Solana RPC says of transactions: one request builder and one reader, driven like Pacifica's endpoints.

Nothing that it answers is an error: it may be down, wrong or malicious, so whatever is not clearly the word of a
Solana node is ``no answer``, with a reason that repeats nothing of the answer, nor of the address: that may hold a
token. Documented at solana.com/docs/rpc/http/getsignaturestatuses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from pacifica_provider.api.client import run
from pacifica_provider.api.outcomes import Answer, TransportFailure
from pacifica_provider.api.transports import HttpRequest, RequestsTransport, base_headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pacifica_provider.api.client import Steps

# Documented: signatures in one request.
MOST_SIGNATURES = 256
# Ten times what 256 statuses take; a longer answer would hold the event loop up while it is read.
_MOST_BYTES = 256 * 1024
_SIGNATURE_BYTES = 64
_SIGNATURE = re.compile(r"[1-9A-HJ-NP-Za-km-z]{64,88}", re.ASCII)
_REQUEST_ID = 1
_ALIEN = "its answer is not that of a Solana node"

Commitment = Literal["processed", "confirmed", "finalized"]
Word = Literal["processed", "confirmed", "finalized", "failed", "not found", "no answer"]
_COMMITMENTS: tuple[Commitment, ...] = get_args(Commitment)


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """
    What the chain says of one transaction, or why it says nothing.

    ``failed``: the transaction is there with an error. ``not found``: the node does not know it, or nobody can, since
    it is no signature.
    """

    word: Word
    why: str = ""

    def __str__(self) -> str:
        return f"{self.word} ({self.why})" if self.why else self.word


# The signature of nothing, 64 zero bytes: what is asked where only the answering matters.
NO_TRANSACTION = "1" * _SIGNATURE_BYTES
_NO_SIGNATURE = ChainStatus("not found", "it is no Solana signature")


def ask_chain(url: str, signatures: Iterable[str], *, timeout_s: float) -> dict[str, ChainStatus]:
    """Ask where transactions stand, as ``chain_statuses`` does, and wait for the answer."""
    return run(chain_statuses(url, signatures), RequestsTransport(timeout_s=timeout_s))


def chain_statuses(url: str, signatures: Iterable[str]) -> Steps[dict[str, ChainStatus]]:
    """
    Ask where transactions stand, 256 in a request, each named once; never raises.

    What is no signature is not asked, since a node refuses a whole request for one of them. After a request without an
    answer the others are not tried.
    """
    found: dict[str, ChainStatus] = {}
    silent: ChainStatus | None = None
    for asked in _chunks(dict.fromkeys(signatures), found):
        if silent is None:
            statuses = read_statuses((yield _request(url, asked)), len(asked))
            if isinstance(statuses, list):
                found.update(zip(asked, statuses, strict=True))
                continue
            silent = statuses
        found.update(dict.fromkeys(asked, silent))
    return found


def read_statuses(result: Answer | TransportFailure, count: int) -> list[ChainStatus] | ChainStatus:
    """Return the status of each of ``count`` signatures in their order, or why there are none."""
    try:
        return [_status(row) for row in _rows(result, count)]
    except _UnusableError as error:
        return ChainStatus("no answer", str(error))


class _UnusableError(Exception):
    """What came back says nothing of any transaction; the text is this module's own."""


def _rows(result: Answer | TransportFailure, count: int) -> list[object]:
    if isinstance(result, TransportFailure):
        raise _UnusableError(result.kind)
    if result.status != 200:
        raise _UnusableError(f"HTTP {result.status}")
    if len(result.body) > _MOST_BYTES:
        raise _UnusableError("its answer is too large")
    try:
        envelope = result.json()
    except ValueError:
        raise _UnusableError("its answer is not JSON") from None
    if envelope.get("error") is not None:
        raise _UnusableError(f"it answers with an error{_code(envelope['error'])}")
    value = envelope.get("result")
    rows = value.get("value") if isinstance(value, Mapping) else None
    if envelope.get("id") != _REQUEST_ID or not isinstance(rows, list) or len(rows) != count:
        raise _UnusableError(_ALIEN)
    return rows


def _status(row: object) -> ChainStatus:
    """Read one status; ``err`` must be there, since without it nothing says that the transaction did not fail."""
    if row is None:
        return ChainStatus("not found")
    if not isinstance(row, Mapping) or "err" not in row:
        return ChainStatus("no answer", _ALIEN)
    if row["err"] is not None:
        return ChainStatus("failed")
    commitment = row.get("confirmationStatus")
    if commitment not in _COMMITMENTS:
        return ChainStatus("no answer", "it does not say how final the transaction is")
    return ChainStatus(commitment)


def _code(error: Any) -> str:
    """Return the code of a JSON-RPC error; its message may quote anything."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return f" ({code})" if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 100_000 else ""


def _chunks(signatures: Iterable[str], found: dict[str, ChainStatus]) -> Iterator[Sequence[str]]:
    """Yield what can be asked in one request each; what cannot be asked goes into ``found``."""
    chunk: list[str] = []
    for signature in signatures:
        if not is_signature(signature):
            found[signature] = _NO_SIGNATURE
            continue
        chunk.append(signature)
        if len(chunk) == MOST_SIGNATURES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def is_signature(text: str) -> bool:
    """Say whether this is base58 of 64 bytes."""
    import base58

    return _SIGNATURE.fullmatch(text) is not None and len(base58.b58decode(text)) == _SIGNATURE_BYTES


def _request(url: str, signatures: Sequence[str]) -> HttpRequest:
    body = {
        "jsonrpc": "2.0",
        "id": _REQUEST_ID,
        "method": "getSignatureStatuses",
        "params": [list(signatures), {"searchTransactionHistory": True}],
    }
    headers = {**base_headers(), "Content-Type": "application/json"}
    return HttpRequest("POST", url, headers, json.dumps(body, separators=(",", ":")).encode("ascii"))
