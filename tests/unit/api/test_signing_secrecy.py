"""The one object that holds a private key shows nothing of it (S01, S02, S04)."""

from __future__ import annotations

import base64
import copy
import json
import pickle
import sys
import traceback
from typing import TYPE_CHECKING, Any

import base58
import pytest
from nacl.signing import SigningKey

from pacifica_provider.api.signing import Signer
from pacifica_provider.exceptions import KeyMaterialError

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = bytes(range(1, 33))
PUBLIC = bytes(SigningKey(SEED).verify_key)
PAIR = SEED + PUBLIC
OTHER_PUBLIC = bytes(SigningKey(bytes(32)).verify_key)
SECRETS = {
    form
    for raw in (SEED, PAIR)
    for form in (
        base58.b58encode(raw).decode(),
        raw.hex(),
        raw.hex().upper(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        ", ".join(map(str, raw)),
        ",".join(map(str, raw)),
        repr(raw),
    )
}


def b58(raw: bytes) -> str:
    """Return base58 text."""
    return base58.b58encode(raw).decode()


def leaked(text: str) -> list[str]:
    """Return the forms of the secret that a text holds, a third of any of them included."""
    return [form for form in SECRETS if form in text or form[: len(form) // 3] in text]


@pytest.fixture
def signer() -> Signer:
    """Return a signer of the secret."""
    return Signer.from_base58(b58(PAIR))


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        "{}".format,
        "{!r}".format,
        lambda signer: f"{signer:}",
        lambda signer: "%s %r" % (signer, signer),  # noqa: UP031 - logging formats in this way
        lambda signer: repr([signer, {"signer": signer}]),
        lambda signer: repr(Signer.__dict__),
        lambda signer: json.dumps(signer, default=str),
    ],
)
def test_a_signer_prints_as_its_public_key(signer: Signer, show: Callable[[Signer], str]) -> None:
    """Whatever turns it into text shows at most the public key (S02)."""
    text = show(signer)

    assert leaked(text) == []
    assert "dict" in show.__name__ or "Signer" in text


@pytest.mark.parametrize(
    "taken",
    [pickle.dumps, copy.copy, copy.deepcopy, lambda signer: pickle.dumps([signer]), lambda s: s.__reduce_ex__(2)],
)
def test_a_signer_cannot_be_pickled_or_copied(signer: Signer, taken: Callable[[Signer], object]) -> None:
    """The key stays in this process, so it reaches neither XCom nor a trigger (S02)."""
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        taken(signer)


def test_a_signer_has_no_dictionary(signer: Signer) -> None:
    """``vars``, JSON encoders of ``__dict__`` and assignment of attributes find nothing to hold on to (S02)."""
    with pytest.raises(TypeError, match="__dict__"):
        vars(signer)
    with pytest.raises(AttributeError):
        signer.key = "x"  # type: ignore[attr-defined]  # that it is not there is the claim


@pytest.mark.parametrize("raw", [SEED, PAIR])
def test_masking_covers_every_common_form_of_the_key(raw: bytes) -> None:
    """Base58, hex, base64 and byte list of seed and pair are handed over, from either form of the secret (S01)."""
    masked: list[str] = []
    Signer.from_base58(b58(raw)).mask_with(masked.append)

    assert set() == SECRETS - set(masked)
    assert b58(PUBLIC) not in masked


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("", "empty"),
        (None, "empty or not text"),
        (b58(PAIR).encode(), "empty or not text"),
        (b58(SEED[:31]), "decodes to 31 bytes"),
        (b58(SEED + b"x"), "decodes to 33 bytes"),
        (b58(PAIR[:63]), "decodes to 63 bytes"),
        (b58(PAIR + b"x"), "decodes to 65 bytes"),
        (b58(PAIR) * 3, "decodes to"),
        (b58(PAIR)[:40] + "0" + b58(PAIR)[41:], "not base58"),
        (b58(PAIR)[:40] + "\u00e9" + b58(PAIR)[41:], "not base58"),
        (f" {b58(PAIR)}", "white space"),
        (f"{b58(PAIR)}\n", "white space"),
        (json.dumps(list(PAIR)), "JSON"),
        (PAIR.hex(), "not base58"),
        (base64.b64encode(PAIR).decode(), "not base58"),
        (b58(SEED + OTHER_PUBLIC), "two halves do not belong together"),
        (b58(PAIR[32:] + PAIR[:32]), "two halves do not belong together"),
    ],
)
def test_a_wrong_key_is_refused_without_an_echo(secret: Any, says: str) -> None:
    """Wrong length, alphabet, encoding or halves: the message says which, and repeats no part of the text (S04)."""
    with pytest.raises(KeyMaterialError, match=rf"private key cannot be used: .*{says}.*Nothing was sent") as caught:
        Signer.from_base58(secret)
    text = "".join(traceback.format_exception(caught.value))

    assert leaked(str(caught.value)) == []
    assert caught.value.__cause__ is None
    assert not secret or str(secret)[:12] not in text


@pytest.mark.parametrize(
    "secret",
    [
        b58(PAIR[:63]),
        b58(SEED + OTHER_PUBLIC),
        b58(PAIR)[:40] + "0" + b58(PAIR)[41:],
        json.dumps(list(PAIR)),
        b58(PAIR) + "\n",
    ],
)
def test_a_traceback_that_prints_locals_shows_no_key(secret: str) -> None:
    """With the locals of every frame of this package printed, as Sentry does, no form of the key appears (S04)."""
    shown = ""
    try:
        Signer.from_base58(secret)
    except KeyMaterialError:
        shown = locals_of_package(sys.exc_info()[2])

    assert "problem" in shown
    assert leaked(shown) == []


def test_a_failing_signature_shows_no_key_in_locals(signer: Signer) -> None:
    """An error inside ``sign`` unwinds through frames that hold the signer only (S04)."""
    shown = ""
    try:
        signer.sign("text instead of bytes")  # type: ignore[arg-type]  # the mistake is the point
    except Exception:  # noqa: BLE001 - which error it is belongs to PyNaCl
        shown = locals_of_package(sys.exc_info()[2])

    assert "Signer of" in shown
    assert leaked(shown) == []


def locals_of_package(trace: Any) -> str:
    """Return the locals of every frame of the package, as a hook that prints them would."""
    frames = [frame for frame, _ in traceback.walk_tb(trace) if "pacifica_provider" in frame.f_code.co_filename]
    return "\n".join(f"{name} = {value!r}" for frame in frames for name, value in frame.f_locals.items())
