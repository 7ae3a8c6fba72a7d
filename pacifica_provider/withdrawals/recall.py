"""The first step of a try: what is already on record for this run, and what a person has decided about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pacifica_provider.exceptions import ConfigurationError, PacificaError, Throttled, Unreachable, Unresolved
from pacifica_provider.withdrawals import crashpoints
from pacifica_provider.withdrawals.decisions import Decision, apply_decision
from pacifica_provider.withdrawals.identity import Order, RunIdentity, fingerprint
from pacifica_provider.withdrawals.intents import Journal, OvertakenError, StoreUnavailableError
from pacifica_provider.withdrawals.records import CLOSED_STATES, Entry, Record

if TYPE_CHECKING:
    from pacifica_provider.withdrawals.conclusions import Conclusions, RunFacts
    from pacifica_provider.withdrawals.look import Policy, Surroundings


class Recall:
    """Finds or begins the record of one withdrawal."""

    def __init__(
        self,
        journal: Journal,
        conclusions: Conclusions,
        run: RunFacts,
        policy: Policy,
        around: Surroundings,
    ) -> None:
        self._journal = journal
        self._conclusions = conclusions
        self._run = run
        self._policy = policy
        self._around = around

    def record(self, identity: RunIdentity, order: Order, base_url: str) -> Record:
        """
        Return the record of this withdrawal, after any waiting decision; a new one if there is none or it was rejected.

        :raises PacificaError: if the store is down, the record is of another order, or it stands beside one it may not.
        """
        entry = self._entry()
        record = self._recorded(entry, identity)
        wiped = record is None and self._unproven(entry)
        if record is not None and record.state not in {"accepted", "void"}:
            record = self._decided(record)
        if record is None or record.state == "rejected":
            now_ms = self._around.now_ms()
            return Record(
                identity=identity,
                order=order,
                base_url=base_url,
                fingerprint=fingerprint(identity, base_url, order),
                maybe_sent=wiped,
                since_ms=min(now_ms, self._run.run_after_ms) if wiped else now_ms,
            )
        if record.fingerprint != fingerprint(identity, base_url, order):
            raise self._conclusions.claims.mismatch(record, order, base_url)
        return record

    def _entry(self) -> Entry | None:
        try:
            entry = self._journal.recall()
        except StoreUnavailableError as error:
            raise self._unread(error, first=self._run.never_ran_before) from None
        try:
            if entry is None and self._run.never_ran_before:
                self._journal.mark()
                crashpoints.reach("after_marker")
        except StoreUnavailableError as error:
            # What can read but not write may have been replaced, and the try that replaced it may have sent something.
            raise self._unread(error, first=False) from None
        return entry

    def _unproven(self, entry: Entry | None) -> bool:
        """
        Say whether this withdrawal may have been sent although the store holds no record of it.

        An entry proves that nothing was wiped; but a mapping that was re-ordered since may have sent this reference
        under another index, whose store is another.
        """
        if self._run.never_ran_before:
            return False
        moved_here = self._run.mapped and (self._run.cleared or bool(entry and entry.records))
        return entry is None or moved_here

    def _unread(self, error: StoreUnavailableError, *, first: bool) -> PacificaError:
        why = f"Airflow's store could not be used ({error}); this try sent nothing."
        if first:
            return self._conclusions.claims.unfinished(None, why)
        return Unresolved(
            f"{why} Whether an earlier try did stands in the record that could not be read; the next try reads it "
            "first."
        )

    def _recorded(self, entry: Entry | None, identity: RunIdentity) -> Record | None:
        records = entry.records if entry else {}
        for other in records.values():
            beside = other.identity.differs_only_in_reference(identity) and other.state in CLOSED_STATES
            if other.identity != identity and not beside:
                raise self._conclusions.claims.other_record(other)
        return records.get(identity.idempotency_key())

    def _decided(self, record: Record) -> Record:
        """Apply a waiting decision to the recorded order, and save it before anything else happens."""
        claims = self._conclusions.claims
        try:
            stored = self._journal.read_decision()
            if stored is None:
                return record
            decision = Decision.from_json(stored)
            if decision.key != record.key:
                raise ConfigurationError(
                    f"The waiting decision names key {decision.key}, this withdrawal has {record.key}; replace it."
                )
            if decision.decision_id not in record.decisions:
                rows = () if decision.action == "void" else self._conclusions.rows_now(record)
                record = apply_decision(
                    record, decision, rows, now_ms=self._around.now_ms(), skew_ms=self._policy.skew_ms
                )
                self._journal.save(record)
                self._conclusions.log(record, f"decided: {record.reason}")
            self._journal.delete_decision()
        except StoreUnavailableError as error:
            raise claims.unfinished(
                record, f"Airflow's store could not be used ({error}); this try sent nothing."
            ) from None
        except OvertakenError:
            raise claims.overtaken(record) from None
        except ConfigurationError as error:
            waiting = type(error)(f"{error} The decision still waits: the next try applies it, unless it is replaced.")
            raise claims.configuration(record, waiting) from None
        except (Unreachable, Throttled) as error:
            raise claims.unfinished(record, str(error)) from None
        return record
