"""A sandbox for each test, and a wallet that talks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pacifica_provider.sandbox import Sandbox
from tests.contract.sandbox.wallet import Wallet

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Yield a running sandbox."""
    with Sandbox(seed=7) as running:
        yield running


@pytest.fixture
def wallet(sandbox: Sandbox) -> Iterator[Wallet]:
    """Yield the wallet of its first account."""
    wallet = Wallet(sandbox)
    with wallet.session:
        yield wallet
