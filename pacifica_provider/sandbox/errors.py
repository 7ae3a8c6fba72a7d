"""What the sandbox refuses, and in whose words.

- `Refused`: the exchange says no; carries the HTTP status, the code and the shape of the body
- `BadControl`: the control interface was called wrongly; always a 400 that names the mistake
"""

from __future__ import annotations

UNPROCESSABLE = 422


class Refused(Exception):
    """An answer other than 200. `shape` is the body's: "envelope", "text" or "empty"."""

    def __init__(
        self, status: int, error: str, *, code: int | None = None, shape: str = "envelope", error_id: str = ""
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.code = status if code is None else code
        self.shape = shape
        self.error_id = error_id or "unspecified"


class BadControl(ValueError):
    """A control call that asks for something that does not exist; its text names it."""


def bad_request(error: str) -> Refused:
    """Refuse a request that cannot be read."""
    return Refused(400, error)


def bad_signature(error: str) -> Refused:
    """Refuse a signature, in the bare text that Pacifica has been seen to send."""
    return Refused(400, error, shape="text")


def business(code: int, error: str) -> Refused:
    """Refuse by a business rule: the one case in which `code` is not the HTTP status."""
    return Refused(UNPROCESSABLE, error, code=code)


def duplicate(shape: str) -> Refused:
    """Refuse an idempotency key that was used before. The true body is unknown, so its shape is an option."""
    return Refused(409, "Duplicate idempotency key", shape=shape, error_id="duplicate_idempotency_key")
