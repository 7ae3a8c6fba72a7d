"""The switches: everything about Pacifica that is unknown, and the knobs of the sandbox itself."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pacifica_provider.sandbox.payloads import Count, Flag, MustBe, Payload, ZeroOrMore, read

Number = Annotated[ZeroOrMore, MustBe("a number, zero or more")]
NumberOrNull = Annotated[ZeroOrMore | None, MustBe("a number, zero or more, or null")]


class Options(Payload):
    """The switches of the exchange. `docs/sandbox.md` says what each one does."""

    # what a repeated key meets
    duplicate_body: Annotated[Literal["envelope", "text", "empty"], MustBe()] = "envelope"
    burn_keys: Flag = False
    key_retention_s: NumberOrNull = None
    conflict_in_progress: Flag = False
    balance_before_key: Flag = False
    # signatures
    future_tolerance_ms: NumberOrNull = None
    expiry_checked: Annotated[Literal["commit", "arrival"], MustBe()] = "commit"
    # batches and lists
    nonce_scope: Annotated[Literal["asset", "global"], MustBe()] = "asset"
    nonce_as_text: Flag = False
    shared_batches: Flag = False
    history_amount: Annotated[Literal["net", "gross"], MustBe()] = "net"
    history_time: Annotated[Literal["accepted", "settled"], MustBe()] = "accepted"
    history_page_size: Count = 100
    list_lag_s: Number = 0
    settle_gap_s: Number = 0
    settle_after_s: NumberOrNull = None
    transaction_id_delay_s: Number = 0
    # a day's limit, of each asset of each account
    daily_limit_usd: NumberOrNull = None
    over_daily_limit: Annotated[Literal["queue", "refuse"], MustBe()] = "queue"
    # the chain
    chain: Annotated[Literal["landed", "failed", "unknown"], MustBe()] = "landed"
    finalized_after_s: NumberOrNull = 0
    # credits and the WebSocket
    enforce_credits: Flag = False
    quota: Count = 100
    quota_with_key: Count = 300
    history_cost: NumberOrNull = None
    ws_idle_timeout_s: Number = 60
    ws_max_age_s: Number = 86_400

    def updated(self, changes: Mapping[str, object], call: str = "options") -> "Options":
        """Return the options with `changes` made: all of them, or none and a sentence about the first wrong one."""
        changed = read(call, Options, dict(changes))
        return self.model_copy(update={name: getattr(changed, name) for name in changed.model_fields_set})
