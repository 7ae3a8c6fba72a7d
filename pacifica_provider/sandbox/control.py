"""The control interface: what tests do to the exchange, and ask of it."""

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from pacifica_provider.sandbox.accounts import Account, Asset, Refused
from pacifica_provider.sandbox.endpoints import READS, WITHDRAW
from pacifica_provider.sandbox.exchange import Exchange, Ledger, Receipt
from pacifica_provider.sandbox.faults import AnyFault, Faults, read_fault
from pacifica_provider.sandbox.openapi import Operation, WrongCall, describe
from pacifica_provider.sandbox.options import Options
from pacifica_provider.sandbox.payloads import Amount, BadControl, Flag, MustBe, NoPayload, Payload, Text, read
from pacifica_provider.sandbox.responses import JSON, NoResponse, as_json
from pacifica_provider.sandbox.solana import SOLANA
from pacifica_provider.sandbox.websocket import Feed
from pacifica_provider.sandbox.withdrawals import Debit

CONTROL = "/control"
METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]
TEN_YEARS_MS = 10 * 365 * 86_400_000
MOST_DECIMALS = 28
Reply = Mapping[str, Any]


BatchNonce = Annotated[int | Annotated[str, Field(pattern=r"^[0-9]+$", max_length=100)], MustBe("a whole number")]
Offset = Annotated[int, Field(ge=-TEN_YEARS_MS, le=TEN_YEARS_MS), MustBe("whole milliseconds, at most ten years")]
Decimals = Annotated[int, Field(ge=0, le=MOST_DECIMALS), MustBe(f"a whole number up to {MOST_DECIMALS}")]
Balances = Annotated[dict[str, Amount], MustBe("an object of symbol and amount")]


class Batches(Payload):
    """Which batches are meant; without one all that the call can concern."""

    symbol: Text | None = None
    batch_nonce: BatchNonce | None = None

    @property
    def nonce(self) -> int | None:
        """The batch's number, in whichever form it was given."""
        return None if self.batch_nonce is None else int(self.batch_nonce)


class ClockOffset(Payload):
    """The distance between the exchange's clock and this machine's."""

    offset_ms: Offset


class ForeignWithdrawal(Payload):
    """A withdrawal that is made elsewhere, by the first account unless another is named."""

    symbol: Text
    amount: Amount
    account: Text | None = None


class NewAccount(Payload):
    """What an account is opened with."""

    balances: Balances = Field(default_factory=dict)
    subaccount_of: Text | None = None


class Binding(Payload):
    """Which agent wallet may sign for an account; a new one if none is named."""

    account: Text
    agent_wallet: Text | None = None
    bound: Flag = True


class AssetChange(Payload):
    """What to change of an asset; an unknown one begins as another SOL."""

    symbol: Text
    decimals: Decimals | None = None
    fee: Amount | None = None
    minimum: Amount | None = None
    price_usd: Amount | None = None
    active: Flag | None = None
    bridge: Annotated[Literal["active", "inactive", "missing"], MustBe()] | None = None


class SocketAction(Payload):
    """What to do to WebSockets."""

    action: Annotated[Literal["cut", "accept", "refuse", "silence"], MustBe()]


F = TypeVar("F", bound=Callable[..., Reply])
CALLS: dict[tuple[str, str], Operation] = {}


def call(method: str, path: str) -> Callable[[F], F]:
    """Make a method of `Control` a call; the type of its `payload` is what the body must be."""

    def register(function: F) -> F:
        body = inspect.get_annotations(function).get("payload")
        errors = {400: {JSON: WrongCall}}
        name = f"control_{function.__name__}"
        CALLS[method, path] = Operation(method, CONTROL + path, name, "control", function, body, errors)
        return function

    return register


class Control:
    """Answers control calls. `base_url` goes into the connections of new accounts."""

    def __init__(self, exchange: Exchange, faults: Faults, feed: Feed, base_url: str) -> None:
        self._exchange = exchange
        self._faults = faults
        self._feed = feed
        self._base_url = base_url

    def routes(self) -> list[Route]:
        """Return a route of each call, and one for what is none."""
        routes = [Route(CONTROL + path, self._endpoint(method, path), methods=[method]) for method, path in CALLS]
        return [*routes, Route(CONTROL + "{path:path}", self._unknown, methods=METHODS)]

    def _endpoint(self, method: str, path: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                body = await request.body()
            except ClientDisconnect:
                return NoResponse()
            try:
                answer = as_json(200, self.dispatch(method, path, _json(body)))
            except BadControl as problem:
                answer = as_json(400, {"error": str(problem)})
            return answer.dated(self._exchange.now_ms()).response

        return endpoint

    async def _unknown(self, request: Request) -> Response:
        return await self._endpoint(request.method, request.path_params["path"])(request)

    def dispatch(self, method: str, path: str, body: object) -> Reply:
        """Carry out one call, or say what is wrong with it."""
        known = CALLS.get((method, path))
        if known is None:
            there_are = ", ".join(f"{verb} {where}" for verb, where in CALLS)
            raise BadControl(f"no control call {method} {path}; there are {there_are}")
        name = f"{method} {path}"
        if known.body is None:
            read(name, NoPayload, body)
            return known.answers(self)
        payload = read_fault(name, body) if known.body is AnyFault else read(name, known.body, body)
        return known.answers(self, payload)

    @call("GET", "/ledger")
    def ledger(self) -> Ledger:
        """Show every debit, every POST, and how many requests there were."""
        return self._exchange.ledger()

    @call("POST", "/settle")
    def settle(self, payload: Batches) -> dict[str, list[Debit]]:
        """Settle what is pending."""
        settled = self._exchange.settle(symbol=payload.symbol, batch_nonce=payload.nonce)
        return {"settled": [row.debit() for row in settled]}

    @call("POST", "/replace_transaction")
    def replace_transaction(self, payload: Batches) -> dict[str, list[Debit]]:
        """Let transactions fail on chain, and show others in their place."""
        replaced = self._exchange.replace_transactions(symbol=payload.symbol, batch_nonce=payload.nonce)
        return {"replaced": [row.debit() for row in replaced]}

    @call("GET", "/faults")
    def faults(self) -> dict[str, list[dict[str, Any]]]:
        """Show the faults."""
        return {"faults": self._faults.as_json()}

    @call("POST", "/faults")
    def add_fault(self, payload: AnyFault) -> dict[str, list[dict[str, Any]]]:
        """Arm a fault."""
        self._faults.add(payload)
        return self.faults()

    @call("DELETE", "/faults")
    def clear_faults(self) -> dict[str, list[dict[str, Any]]]:
        """Disarm all faults."""
        self._faults.clear()
        return self.faults()

    @call("GET", "/clock")
    def clock(self) -> dict[str, int]:
        """Tell the exchange's time."""
        return {"offset_ms": self._exchange.clock.offset_ms, "now_ms": self._exchange.now_ms()}

    @call("POST", "/clock")
    def set_clock(self, payload: ClockOffset) -> dict[str, int]:
        """Set, not add, the distance between the exchange's clock and this machine's."""
        self._exchange.clock.offset_ms = payload.offset_ms
        self._exchange.advance()
        return self.clock()

    @call("POST", "/forget_keys")
    def forget_keys(self) -> dict[str, int]:
        """Forget every idempotency key."""
        return {"forgotten": self._exchange.forget_keys()}

    @call("POST", "/foreign_withdrawal")
    def foreign_withdrawal(self, payload: ForeignWithdrawal) -> Receipt:
        """Make a withdrawal without a key."""
        account = self._exchange.main.account if payload.account is None else payload.account
        try:
            self._exchange.check_rules(account, payload.symbol, payload.amount)
        except Refused as refused:
            raise BadControl(f"the exchange refuses it: {refused.error}") from None
        return self._exchange.accept(account, payload.symbol, payload.amount, key=None)

    @call("GET", "/options")
    def options(self) -> dict[str, dict[str, Any]]:
        """Show the switches."""
        return {"options": self._exchange.options.model_dump()}

    @call("POST", "/options")
    def set_options(self, payload: Options) -> dict[str, dict[str, Any]]:
        """Flip switches; those that are left out stay."""
        self._exchange.set_options(payload.model_dump(exclude_unset=True))
        return self.options()

    @call("POST", "/accounts")
    def open_account(self, payload: NewAccount) -> dict[str, str]:
        """Open an account."""
        if payload.subaccount_of is not None:
            self._account("subaccount_of", payload.subaccount_of)
        return self._exchange.accounts.open(payload.balances, payload.subaccount_of).as_json(self._base_url)

    @call("POST", "/agents")
    def bind_agent(self, payload: Binding) -> dict[str, str | bool]:
        """Bind an agent wallet to an account, or unbind it."""
        if payload.agent_wallet is None and not payload.bound:
            raise BadControl("'agent_wallet' is missing: which one is to be unbound?")
        account = self._account("account", payload.account)
        if payload.agent_wallet is None:
            agent = self._exchange.accounts.bind_new_agent(account)
            new = {"agent_wallet": agent.address, "agent_private_key": agent.secret}
            return {"account": account.address, **new, "bound": True}
        (account.agents.add if payload.bound else account.agents.discard)(payload.agent_wallet)
        return {"account": account.address, "agent_wallet": payload.agent_wallet, "bound": payload.bound}

    def _account(self, name: str, address: str) -> Account:
        account = self._exchange.accounts.find(address)
        if account is None:
            raise BadControl(f"{name!r} must be an account of this sandbox")
        return account

    @call("POST", "/assets")
    def change_asset(self, payload: AssetChange) -> dict[str, str | bool | int]:
        """Change an asset or add one."""
        known = self._exchange.assets
        asset: Asset = known.get(payload.symbol) or known["SOL"]
        asset = known[payload.symbol] = replace(asset, **payload.model_dump(exclude_none=True))
        return {"symbol": asset.symbol, "active": asset.active, "bridge": asset.bridge, "decimals": asset.decimals}

    @call("GET", "/ws")
    def sockets(self) -> dict[str, str | int]:
        """Show how many WebSockets are open."""
        return {"mode": self._feed.mode, "connections": self._feed.connections}

    @call("POST", "/ws")
    def set_sockets(self, payload: SocketAction) -> dict[str, str | int]:
        """Reset every WebSocket, or choose what new ones meet."""
        if payload.action == "cut":
            return {**self.sockets(), "cut": self._feed.cut()}
        self._feed.mode = payload.action
        return self.sockets()

    @call("GET", "/openapi.json")
    def openapi(self) -> dict[str, Any]:
        """Describe the sandbox as OpenAPI 3.1."""
        return description()


def description() -> dict[str, Any]:
    """Return the description of the whole sandbox."""
    return describe([WITHDRAW, *READS, SOLANA, *CALLS.values()])


def _json(body: bytes) -> object:
    try:
        return json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise BadControl("the body is not JSON") from None
