"""Whether the exchange answers: logged when it changes, once for ten thousand waiting tasks."""

from __future__ import annotations

import logging
import time

from pacifica_provider.exceptions import ConfigurationError, PacificaError

log = logging.getLogger(__name__)

# How long the exchange may refuse the connection before the triggers read it again: it may have been corrected.
REFUSED_S = 300.0


class Condition:
    """
    The state of one account's conversation.

    :param account: named in the log.
    """

    def __init__(self, account: str) -> None:
        self._account = account
        self._trouble: str | None = None
        self._refused_since: float | None = None

    def good(self) -> None:
        """Note that a look came to its end."""
        self._refused_since = None
        if self._trouble is not None:
            log.info("Pacifica answers again for account %s.", self._account)
            self._trouble = None

    def bad(self, error: PacificaError, *, waiting: int, pause_s: float) -> bool:
        """Note that a look failed; say whether the connection was refused for so long that it is to be read again."""
        trouble = f"{type(error).__name__} {error.status}"
        if trouble != self._trouble:
            log.warning(
                "Account %s, %d waiting: could not look, will look again in %.0f s and go on: %s",
                self._account,
                waiting,
                pause_s,
                error,
            )
            self._trouble = trouble
        if not isinstance(error, ConfigurationError):
            self._refused_since = None
            return False
        if self._refused_since is None:
            self._refused_since = time.monotonic()
        return time.monotonic() - self._refused_since >= REFUSED_S
