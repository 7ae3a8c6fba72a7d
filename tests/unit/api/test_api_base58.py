"""The signature's own base58 printer against the library's."""

from __future__ import annotations

import base58
from hypothesis import given
from hypothesis import strategies as st

from pacifica_provider.api.signing import _base58_text


@given(st.binary(max_size=80) | st.binary(max_size=70).map(lambda raw: b"\0" * 5 + raw))
def test_bytes_print_as_the_library_prints_them(raw: bytes) -> None:
    """Every byte text, leading zeros included, has the same base58 text as the well-kept library gives it."""
    expected = base58.b58encode(raw).decode("ascii")

    actual = _base58_text(raw)

    assert expected == actual
