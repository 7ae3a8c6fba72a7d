"""What a person meets on Airflow's pages: a form, a test, a log, a link, a decision, and runs that begin by events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from playwright.sync_api import expect

from pacifica_provider.withdrawals.ledger import decision_entry, withdrawal_entry

if TYPE_CHECKING:
    from tests.lab.browser.pages import Pages
    from tests.lab.local_airflow import LocalAirflow
    from tests.lab.local_sandbox import LocalSandbox

SECRETS = ("private_key", "agent_private_key", "api_config_key")
LEDGER = "pacifica_withdrawals"


def debits(exchange: LocalSandbox) -> int:
    """Return how many withdrawals the exchange has made."""
    return len(exchange.control("GET", "/ledger")["debits"])


def test_a_connection_is_made_by_the_form_and_shows_no_secret(pages: Pages, exchange: LocalSandbox) -> None:
    """Not saved without an environment (S09); saved, tested green, and opened again, nothing secret is on the page."""
    form, info = pages.connection_form(), exchange.info
    save = form.get_by_role("button", name="Save")
    form.get_by_label("Connection ID").fill("treasury")
    for name, value in (("login", "account"), ("password", "agent_private_key"), ("host", "base_url")):
        form.locator(f"[name={name}]").fill(info[value])
    form.get_by_label("Port").fill("0")
    refused = save.is_disabled()
    pages.picture("connection-standard")
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    environment = form.get_by_role("combobox").last
    environment.click()
    choices = pages.page.get_by_role("option").all_inner_texts()
    environment.fill("custom")
    pages.page.keyboard.press("Enter")
    form.locator("[name=element_pf_api_key]").fill(info["api_config_key"])
    pages.picture("connection-extra")
    expect(save).to_be_enabled()
    save.click()
    row = pages.page.get_by_role("row", name="treasury")
    with pages.page.expect_response("**/connections/test") as green:
        row.get_by_role("button", name="Test Connection").click()
    row.get_by_role("button", name="Edit Connection").click()
    for name in ("Extra Fields", "Extra Fields JSON"):
        form.get_by_role("button", name=name, exact=True).click()
    expect(form.locator("[name=element_pf_api_key]")).to_be_visible()
    shown = [pages.page.content(), *(each.input_value() for each in form.locator("input, textarea").all())]

    assert refused
    assert choices == ["testnet", "mainnet", "custom"]
    tested = green.value.json()
    assert tested["status"] is True
    assert f"(custom, {info['base_url']}) knows account {info['account']} and shows its " in tested["message"]
    assert not [name for name in SECRETS for text in shown if info[name] in text]


def test_a_connection_that_leads_nowhere_is_tested_red(pages: Pages, exchange: LocalSandbox) -> None:
    """The page shows the sentence that says what to mend."""
    form = pages.connection_form()
    form.get_by_label("Connection ID").fill("nowhere")
    form.locator("[name=login]").fill(exchange.info["account"])
    form.locator("[name=host]").fill("http://127.0.0.1:9/api/v1")
    form.get_by_label("Port").fill("0")
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    form.get_by_role("combobox").last.fill("custom")
    pages.page.keyboard.press("Enter")
    form.get_by_role("button", name="Save").click()
    row = pages.page.get_by_role("row", name="nowhere")
    with pages.page.expect_response("**/connections/test") as red:
        row.get_by_role("button", name="Test Connection").click()
    expect(pages.page.get_by_text("connection refused")).to_be_visible()
    pages.picture("connection-test-red")

    assert red.value.json()["status"] is False


def test_a_withdrawal_over_the_cap_is_refused_in_one_sentence(pages: Pages, exchange: LocalSandbox) -> None:
    """The log names order and limit, and says that nothing was sent; the exchange has seen no request to withdraw."""
    before = len(exchange.control("GET", "/ledger")["posts"])
    run = pages.trigger("browser_capped")

    state = pages.run_ends("browser_capped", run)
    page = pages.task("browser_capped", run)
    expect(page.get_by_text("5 SOL is more than the connection's Withdrawal limits allow")).to_be_visible()
    expect(page.get_by_text("Nothing was sent.").first).to_be_visible()
    page.get_by_role("link", name="Rendered Templates").click()
    for shown in (exchange.info["account"], "withdrawal_limit"):
        expect(page.get_by_text(shown).first).to_be_visible()

    assert (state, len(exchange.control("GET", "/ledger")["posts"])) == ("failed", before)


def test_an_unknown_is_decided_without_a_shell(pages: Pages, airflow: LocalAirflow, exchange: LocalSandbox) -> None:
    """The log says first that money may have moved; the decision is an entry of the asset's state, made on its page."""
    for fault in ({"kind": "reset"}, {"kind": "status", "status": 422}):
        exchange.control("POST", "/faults", {"route": "withdraw", "when": "before_commit", "count": 1, **fault})
    before = debits(exchange)
    run = pages.trigger("browser_unknown")
    state = pages.run_ends("browser_unknown", run)
    page = pages.task("browser_unknown", run)
    expect(
        page.get_by_text("OutcomeUnknown: UNKNOWN whether 1 SOL was withdrawn; money may have moved.")
    ).to_be_visible()
    pages.picture("unknown", above=page.get_by_text('File "').first)
    name = decision_entry("browser_unknown", run, "withdraw", None)
    expect(page.get_by_text(f"leave it as entry {name}")).to_be_visible()
    page.get_by_role("link", name="Details").click()
    runbook, records = (page.get_by_role("link", name=name) for name in ("Runbook", "Withdrawals on record"))
    addresses = [str(link.get_attribute("href")) for link in (runbook, records)]
    page.goto(addresses[0])
    expect(page.get_by_role("heading", name="When it says UNKNOWN")).to_be_visible()
    record = airflow.entry(withdrawal_entry("browser_unknown", run, "withdraw", None))
    decision: dict[str, Any] = {
        "key": record["key"],
        "action": "repost",
        "fingerprint": record["fingerprint"],
        "attempts": len(record["attempts"]),
        "rows": [],
        "by": "ana",
        "why": "the lists are empty",
    }

    page.goto(addresses[1])
    page.get_by_role("link", name=LEDGER).first.click()
    page.locator("a[href$=asset-state-store]").click()
    page.get_by_role("button", name="Add Asset State Store").click()
    form = page.get_by_role("dialog")
    form.locator("input").fill(name)
    form.get_by_role("textbox").last.focus()
    page.keyboard.insert_text(json.dumps(decision))
    pages.picture("decision")
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()
    left = airflow.entry(name)
    pages.task("browser_unknown", run)
    page.get_by_role("button", name="Press shift+c to clear").click()
    page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    airflow.wait_until(
        lambda: airflow.rest("GET", f"/dags/browser_unknown/dagRuns/{run}")["state"] != "failed", 60, "the clear"
    )

    assert (state, left) == ("failed", decision)
    assert (pages.run_ends("browser_unknown", run), debits(exchange)) == ("success", before + 1)


def test_a_settled_withdrawal_links_to_its_transaction(
    pages: Pages, airflow: LocalAirflow, exchange: LocalSandbox
) -> None:
    """Solana's explorer, on the cluster of the environment."""
    run = pages.trigger("browser_linked")
    before = debits(exchange)
    airflow.wait_until(lambda: debits(exchange) > before, 120, "a withdrawal")
    exchange.control("POST", "/settle")
    state = pages.run_ends("browser_linked", run)
    receipt = airflow.xcom("browser_linked", run, "withdraw")
    page = pages.task("browser_linked", run)
    page.get_by_role("link", name="Details").click()
    link = page.get_by_role("link", name="Transaction on Solana")
    expect(link).to_be_visible()
    pages.picture("link")

    portfolio = page.get_by_role("link", name="Pacifica portfolio").count()
    explorer = link.get_attribute("href")

    assert (state, portfolio) == ("success", 0)  # a sandbox has no such page
    assert explorer == (f"https://explorer.solana.com/tx/{receipt['transaction_id']}?cluster=devnet")


def test_what_is_approved_on_the_page_is_withdrawn_and_nothing_else(
    pages: Pages, airflow: LocalAirflow, exchange: LocalSandbox
) -> None:
    """The page shows the order; an amount that is another one by the time it is withdrawn is refused."""
    before, ends = debits(exchange), {}
    for dag_id, shown in (("example_approval", "Withdraw 1.25 SOL (fee 0.001"), ("browser_drifting", "Withdraw 1.1")):
        run = pages.trigger(dag_id)
        airflow.wait_task_state(dag_id, run, "approve", ["awaiting_input"])
        airflow.wait_scheduler_knows(dag_id, run, 120)
        page = pages.open(f"/dags/{dag_id}/runs/{quote(run)}/tasks/approve/required_actions")
        expect(page.get_by_text(shown).first).to_be_visible()
        if dag_id == "example_approval":
            pages.picture("approval")
        page.get_by_role("button", name="Approve", exact=True).click()
        ends[dag_id] = pages.run_ends(dag_id, run)
    expect(pages.task("browser_drifting", run).get_by_text("Prepared for approval was 1.1")).to_be_visible()

    assert ends == {"example_approval": "success", "browser_drifting": "failed"}
    assert debits(exchange) == before + 1


def test_settled_withdrawals_start_runs(pages: Pages, airflow: LocalAirflow, exchange: LocalSandbox) -> None:
    """Both event-driven examples begin, and what is triggered as the page offers it pays once, not twice."""
    before, looks = debits(exchange), exchange.control("GET", "/ledger")["requests"].get("history", 0)
    for dag_id in ("example_withdrawal_events", "example_withdrawal_outlets_reader"):
        airflow.unpause(dag_id)
    # Airflow starts an asset's watcher when it reads the file again; what was settled before that is the past.
    airflow.wait_until(
        lambda: exchange.control("GET", "/ledger")["requests"].get("history", 0) > looks, 120, "the asset's watcher"
    )
    run = pages.trigger("example_withdrawal_outlets")
    airflow.wait_until(lambda: debits(exchange) > before, 120, "a withdrawal")
    exchange.control("POST", "/settle")
    state = pages.run_ends("example_withdrawal_outlets", run)
    ends = [
        _first_run(airflow, dag_id) for dag_id in ("example_withdrawal_events", "example_withdrawal_outlets_reader")
    ]

    assert (state, ends, debits(exchange)) == ("success", ["success", "success"], before + 1)


def _first_run(airflow: LocalAirflow, dag_id: str) -> str:
    """Wait for the first run of a DAG that nobody triggers, and return its end."""

    def runs() -> list[dict[str, Any]]:
        return list(airflow.rest("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"])

    airflow.wait_until(runs, 120, f"a run of {dag_id}")
    return airflow.wait_run(dag_id, str(runs()[0]["dag_run_id"]))
