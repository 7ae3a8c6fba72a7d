"""
Hypothesis plays the world: it chooses tries, kills, freezes, losses, clears and decisions, and shrinks what breaks.

The parts are the simulator's, without its luck: whatever goes wrong here was chosen.
"""

from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.simulator.exchange import FEE, ExchangeOptions
from tests.simulator.fault_injector import POST_FAULTS
from tests.simulator.people import decide_rightly, decide_wrongly, leave
from tests.simulator.profiles import HOUR, MINUTE
from tests.simulator.runs import CONCLUDED
from tests.simulator.scripted import NEVER_MS, ScriptedWorld
from tests.simulator.tasks import HOOK, HOOK_REFERENCES, MAPPED, OPERATOR, TAGGED, Kind
from tests.simulator.worker import ProcessFaults

if TYPE_CHECKING:
    from tests.simulator.fault_injector import PostFault

CI = os.environ.get("CI") == "true"
# `make mutants` wants to know whether something is caught, not the smallest story of it.
PHASES = (Phase.explicit, Phase.generate) if os.environ.get("MUTANT") else tuple(Phase)
faults = st.lists(st.sampled_from((None, *POST_FAULTS)), max_size=2)
steps = st.none() | st.integers(1, 40)


class Protocol(RuleBasedStateMachine):
    """One withdrawal, and everything that may happen to it."""

    backup_ms: int | None = None

    @initialize(
        fenced=st.booleans(),
        kind=st.sampled_from((OPERATOR, MAPPED, HOOK, HOOK_REFERENCES, TAGGED)),
        burns=st.booleans(),
        gross=st.booleans(),
        shared=st.booleans(),
        lag_s=st.sampled_from((0, 15, 30)),
    )
    def begin(self, *, fenced: bool, kind: Kind, burns: bool, gross: bool, shared: bool, lag_s: int) -> None:
        """Begin with a run that was never tried, on an exchange whose unknowns are chosen."""
        options = ExchangeOptions(
            burns_keys=burns,
            history_gross=gross,
            shared_batches=shared,
            list_lag_ms=lag_s * 1000,
            settle_ms=NEVER_MS,
        )
        references = ("one", "two") if kind is HOOK_REFERENCES else None
        self.scripted = ScriptedWorld(options, fenced=fenced, kind=kind, references=references)

    @rule(chosen=faults, kill_at=steps, freeze_at=steps, skew_ms=st.sampled_from((-4000, 0, 4000, 60_000)))
    def another_try(
        self, *, chosen: list[PostFault | None], kill_at: int | None, freeze_at: int | None, skew_ms: int
    ) -> None:
        """Run the next try, until it ends or freezes; one that was frozen before is replaced by it."""
        freezes: dict[int | str, int] = {} if freeze_at is None else {freeze_at: 20 * MINUTE}
        self.scripted.attempt(*chosen, process_faults=ProcessFaults(kill_at=kill_at, freezes=freezes, skew_ms=skew_ms))

    @rule(amount=st.sampled_from(("1", "2")))
    def the_order_drifts(self, amount: str) -> None:
        """Let the template render to another amount from now on, or to the first one again."""
        self.scripted.task.payment.amount = amount

    @rule(bound=st.booleans())
    def the_agent_is_rotated(self, *, bound: bool) -> None:
        """Another agent signs the next request; the account's key is the same, and it may be refused."""
        self.another_try(chosen=[None if bound else "refused"], kill_at=None, freeze_at=None, skew_ms=0)

    @rule()
    def the_reference_drifts(self) -> None:
        """Let the template render to another reference from now on; several references are what they are."""
        payment = self.scripted.task.payments[0]
        if self.scripted.run.kind.one_reference and not self.scripted.run.kind.mapped:
            drifted = None if payment.identity.withdrawal_ref else "drifted"
            payment.identity = replace(payment.identity, withdrawal_ref=drifted)

    @rule()
    def clear(self) -> None:
        """Clear the run."""
        self.scripted.clear()

    @rule()
    def made_again(self) -> None:
        """Delete the run and make it again under the same id."""
        self.scripted.run.recreate()
        (self.scripted.task,) = self.scripted.run.tasks

    @rule()
    def back_up(self) -> None:
        """Back up Airflow's database."""
        self.backup_ms = self.scripted.scheduler.now_ms

    @precondition(lambda self: self.backup_ms is not None)
    @rule()
    def restore(self) -> None:
        """Let Airflow's database come back from the backup, and say so."""
        assert self.backup_ms is not None
        self.scripted.restore(self.backup_ms)

    @rule()
    def prune(self) -> None:
        """Forget what ended more than half an hour ago."""
        self.scripted.ledger.prune(self.scripted.scheduler.now_ms - HOUR // 2)

    @rule(fee=st.sampled_from((FEE, FEE * 2)), gone=st.booleans())
    def the_bridge_changes(self, *, fee: Decimal, gone: bool) -> None:
        """Take another fee, or none that can be had."""
        self.scripted.exchange.charge(fee)
        self.scripted.exchange.bridge_gone = gone

    @rule()
    def forget_keys(self) -> None:
        """Let the exchange forget every key it has known for ten minutes."""
        self.scripted.forget_keys()

    @rule(amount=st.sampled_from((Decimal(1), Decimal(2), 1 + FEE, 1 - FEE)))
    def withdrawn_elsewhere(self, amount: Decimal) -> None:
        """Somebody withdraws the same, or what looks like it in a list."""
        self.scripted.exchange.withdraw_elsewhere("SOL", amount)

    @rule()
    def settle(self) -> None:
        """Send on chain what is pending."""
        self.scripted.exchange.settle()

    @rule(balance=st.sampled_from((0, 1, 1000)))
    def the_balance_changes(self, balance: int) -> None:
        """Money is there, or is not."""
        self.scripted.exchange.balance = Decimal(balance)

    @rule(passed_ms=st.sampled_from((1_000, 12_000, 40_000, 8 * MINUTE, 11 * MINUTE, 72 * HOUR)))
    def time_passes(self, passed_ms: int) -> None:
        """Late requests land, frozen tries thaw."""
        self.scripted.pass_time(passed_ms)

    @precondition(lambda self: self.scripted.task.outcome in {"OutcomeUnknown", "Unresolved"})
    @rule(rightly=st.booleans())
    def a_person_decides(self, *, rightly: bool) -> None:
        """Leave a decision, rightly or from wrong information."""
        decision = decide_rightly(self.scripted.task) if rightly else decide_wrongly(self.scripted.task)
        if decision is not None:
            leave(self.scripted.task, decision)

    @invariant()
    def the_promise_holds(self) -> None:
        """I1 to I6, as far as this history has come."""
        if hasattr(self, "stage"):
            assert self.scripted.violations() == []

    def teardown(self) -> None:
        """I8: left alone with enough money, the run ends."""
        if not hasattr(self, "stage"):
            return
        self.scripted.exchange.balance += 1000
        self.scripted.exchange.bridge_gone = False
        task = self.scripted.task
        for _ in range(4):
            if task.outcome not in CONCLUDED:
                self.scripted.pass_time(10 * MINUTE)
                self.scripted.attempt()
        self.scripted.close()

        assert task.outcome in CONCLUDED
        self.the_promise_holds()


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=1500,
    stateful_step_count=14,
    deadline=None,
    derandomize=CI,
    phases=PHASES,
    suppress_health_check=[HealthCheck.too_slow],  # two cores may be shared with a whole test suite
)
