"""Base58 as `Signer.sign` prints it, against the library it replaces there for speed."""

from __future__ import annotations

import base58
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pacifica_provider.api.signing import _base58_text


@given(st.binary(max_size=80))
@example(b"")
@example(b"\x00")
@example(bytes(64))
@example(b"\xff" * 64)
@example(b"\x00\x00" + b"\xff" * 62)
def test_bytes_are_printed_as_the_library_prints_them(raw: bytes) -> None:
    """Any bytes, leading zeros included: about one signature in 256 begins with one, and another text is refused."""
    expected = base58.b58encode(raw).decode("ascii")

    assert expected == _base58_text(raw)


@pytest.mark.parametrize("digits", range(1, 10))
def test_a_number_that_needs_just_so_many_digits_keeps_them(digits: int) -> None:
    """Four digits are printed at a time: neither a whole group nor a begun one loses or gains any."""
    smallest, largest = 58 ** (digits - 1), 58**digits - 1
    expected = ["2" + "1" * (digits - 1), "z" * digits]

    assert expected == [_base58_text(n.to_bytes((n.bit_length() + 7) // 8, "big")) for n in (smallest, largest)]
