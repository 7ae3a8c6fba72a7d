"""What a Solana RPC answers about the sandbox's own transactions: two methods, and nothing of any other chain."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

import base58
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from pacifica_provider.sandbox.exchange import Exchange
from pacifica_provider.sandbox.openapi import Operation
from pacifica_provider.sandbox.requests import SIGNATURE_BYTES

MOST_SIGNATURES = 256
# What a node still knows without its transaction history, 150 blocks.
RECENT_MS = 60_000
SLOT_MS = 400
FEE_LAMPORTS = 5_000
FAILED = {"InstructionError": [0, {"Custom": 1}]}
PARSE_ERROR, NO_REQUEST, NO_METHOD, WRONG_PARAMS = -32_700, -32_600, -32_601, -32_602
SIGNATURE = re.compile(r"[1-9A-HJ-NP-Za-km-z]{64,88}", re.ASCII)
RequestId = Annotated[str | int | None, Field(union_mode="left_to_right")]


class Call(BaseModel):
    """A JSON-RPC request: `getSignatureStatuses` or `getTransaction`."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    jsonrpc: Literal["2.0"]
    id: RequestId = None
    method: str
    params: list[Any] = Field(default_factory=list)


class RpcProblem(TypedDict):
    """Why there is no result."""

    code: int
    message: str


class RpcAnswer(TypedDict, total=False):
    """What a JSON-RPC request is answered with: a result or an error."""

    jsonrpc: str
    id: str | int | None
    result: Any
    error: RpcProblem


class RpcError(Exception):
    """A request that has no result."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.problem: RpcProblem = {"code": code, "message": message}


def answer(exchange: Exchange, body: bytes) -> RpcAnswer:
    """Say where transactions stand, as a Solana node does."""
    call: Call | None = None
    try:
        call = _read(body)
        if call.method not in METHODS:
            raise RpcError(NO_METHOD, "Method not found")
        result = METHODS[call.method](exchange, call.params)
    except RpcError as error:
        return {"jsonrpc": "2.0", "error": error.problem, "id": None if call is None else call.id}
    return {"jsonrpc": "2.0", "result": result, "id": call.id}


def _read(body: bytes) -> Call:
    try:
        return Call.model_validate_json(body)
    except ValidationError as problem:
        if problem.errors()[0]["type"] == "json_invalid":
            raise RpcError(PARSE_ERROR, "Parse error") from None
        raise RpcError(NO_REQUEST, "Invalid request") from None


def _statuses(exchange: Exchange, params: list[Any]) -> dict[str, Any]:
    signatures = params[0] if params else None
    if not isinstance(signatures, list):
        raise RpcError(WRONG_PARAMS, "Invalid params: invalid type, expected a sequence")
    if len(signatures) > MOST_SIGNATURES:
        raise RpcError(WRONG_PARAMS, f"Too many inputs provided; max {MOST_SIGNATURES}")
    signatures = [_checked(each) for each in signatures]
    exchange.advance()
    known = exchange.chain()
    since_ms = 0 if _config(params).get("searchTransactionHistory") is True else exchange.now_ms() - RECENT_MS
    value = [_status(known[each]) if each in known and known[each][0] >= since_ms else None for each in signatures]
    return {"context": {"apiVersion": "2.0.0", "slot": exchange.now_ms() // SLOT_MS}, "value": value}


def _status(transaction: tuple[int, str]) -> dict[str, Any]:
    at_ms, state = transaction
    err = FAILED if state == "failed" else None
    return {
        "slot": at_ms // SLOT_MS,
        "confirmations": 10 if state == "confirmed" else None,
        "err": err,
        "status": {"Ok": None} if err is None else {"Err": err},
        "confirmationStatus": "confirmed" if state == "confirmed" else "finalized",
    }


def _transaction(exchange: Exchange, params: list[Any]) -> dict[str, Any] | None:
    signature = _checked(params[0] if params else None)
    exchange.advance()
    at_ms, state = exchange.chain().get(signature, (0, ""))
    if not state or (state == "confirmed" and _config(params).get("commitment") != "confirmed"):
        return None  # unless told otherwise a node shows what is finalized
    err = FAILED if state == "failed" else None
    return {
        "slot": at_ms // SLOT_MS,
        "blockTime": at_ms // 1000,
        "meta": {"err": err, "fee": FEE_LAMPORTS, "status": {"Ok": None} if err is None else {"Err": err}},
        "transaction": {"signatures": [signature]},
    }


METHODS: dict[str, Callable[[Exchange, list[Any]], dict[str, Any] | None]] = {
    "getSignatureStatuses": _statuses,
    "getTransaction": _transaction,
}


def _config(params: list[Any]) -> dict[str, Any]:
    config = params[1] if len(params) > 1 else None
    return config if isinstance(config, dict) else {}


def _checked(signature: object) -> str:
    """Return it; refuse what is no signature; a node refuses the whole request then."""
    if not isinstance(signature, str) or not SIGNATURE.fullmatch(signature):
        raise RpcError(WRONG_PARAMS, "Invalid param: Invalid")
    if len(base58.b58decode(signature)) != SIGNATURE_BYTES:
        raise RpcError(WRONG_PARAMS, "Invalid param: WrongSize")
    return signature


SOLANA = Operation("POST", "/solana", "solana", "chain", answer, Call)
