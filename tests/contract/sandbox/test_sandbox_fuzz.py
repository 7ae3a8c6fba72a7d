"""Whatever a signed order says, the sandbox answers as an exchange would: never with a 500 of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacifica_provider.sandbox import Sandbox
from tests.contract.sandbox.wallet import Wallet, new_key

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDS = ["account", "signature", "timestamp", "symbol", "amount", "idempotency_key", "agent_wallet", "expiry_window"]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["SOL", "1", "reset"])
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(), scalars, max_size=3)


@pytest.fixture(scope="module")
def tough() -> Iterator[Wallet]:
    """Yield the wallet of a sandbox that all examples share."""
    with Sandbox(seed=7) as sandbox:
        wallet = Wallet(sandbox)
        with wallet.session:
            yield wallet


@settings(max_examples=100)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), values, max_size=3))
def test_any_order(tough: Wallet, changes: dict[str, object]) -> None:
    """An order with any fields is accepted, refused, or rejected; and debited exactly if accepted."""
    before = len(tough.debits())

    status = tough.post({**tough.order(key=new_key()), **changes}).status_code

    assert status in (200, 400, 422)
    assert len(tough.debits()) - before == (1 if status == 200 else 0)
