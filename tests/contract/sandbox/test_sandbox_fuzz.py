"""Whatever is sent, the sandbox answers as an exchange would: never with a 500 of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacifica_provider.sandbox import Sandbox
from pacifica_provider.sandbox.faults import COMMON, KINDS
from pacifica_provider.sandbox.options import Options
from tests.contract.sandbox.wallet import WITHDRAW, Wallet, new_key
from tests.support.patience import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = ["account", "signature", "timestamp", "symbol", "amount", "idempotency_key", "agent_wallet", "expiry_window"]
PARAMETERS = sorted({name for kind in KINDS.values() for name in kind.takes()} - {*COMMON, "seconds", "bytes"})
CALLS = ["/settle", "/foreign_withdrawal", "/accounts", "/agents", "/assets", "/options", "/faults"]
NAMES = [*FIELDS, *COMMON, *PARAMETERS, "batch_nonce", "balances", "bound", "decimals", "fee", "active", "bridge"]
OPTIONS = sorted(set(Options.model_fields) - {"enforce_credits"})

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["SOL", "1", "reset"])
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(), scalars, max_size=3)


@pytest.fixture(scope="module")
def tough() -> Iterator[Wallet]:
    """Yield the wallet of a sandbox that all examples share."""
    with Sandbox(seed=7) as sandbox:
        wallet = Wallet(sandbox)
        with wallet.session:
            yield wallet


@settings(max_examples=150, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), values, max_size=3))
def test_any_order(tough: Wallet, changes: dict[str, object]) -> None:
    """An order with any fields is accepted, refused, or rejected; and debited exactly if accepted."""
    before = len(tough.debits())

    status = tough.post({**tough.order(key=new_key()), **changes}).status_code

    assert status in (200, 400, 422)
    assert len(tough.debits()) - before == (1 if status == 200 else 0)


@settings(max_examples=100, deadline=None)
@given(query=st.dictionaries(st.sampled_from(["account", "limit", "cursor"]), st.text(), max_size=3))
def test_any_query(tough: Wallet, query: dict[str, str]) -> None:
    """Any query is answered or refused."""
    response = tough.session.get(tough.base_url + WITHDRAW + "/history", params=query, timeout=PATIENCE_S)

    assert response.status_code in (200, 400)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(CALLS), wish=st.dictionaries(st.sampled_from(NAMES + OPTIONS), values, max_size=4))
def test_any_control_call(tough: Wallet, path: str, wish: dict[str, object]) -> None:
    """Any control call is carried out or refused in words, and the exchange works on."""
    url = tough.sandbox.control_url

    status = tough.session.post(url + path, data=json.dumps(wish), timeout=PATIENCE_S).status_code
    tough.session.delete(url + "/faults", timeout=PATIENCE_S)
    after = tough.get("/account").status_code

    assert (status in (200, 400), after) == (True, 200)
