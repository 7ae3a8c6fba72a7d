"""Airflow itself finds the installed package: its commands, its form, its Test button."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from pacifica_provider.get_provider_info import get_provider_info
from tests.support.airflow_line import AIRFLOW

if TYPE_CHECKING:
    from tests.lab.cluster import TestCluster

pytestmark = pytest.mark.side_by_side
NAME = "airflow-provider-pacifica"
(DECLARED,) = get_provider_info()["connection-types"]


@pytest.mark.feature("discovery")
def test_airflow_lists_the_provider_and_its_hook(cluster: TestCluster) -> None:
    """By its entry point alone."""
    (hook,) = [each for each in told(cluster, "hooks") if each["connection_type"] == "pacifica"]

    assert NAME in [each["package_name"] for each in told(cluster, "list")]
    assert (hook["class"], hook["package_name"]) == (DECLARED["hook-class-name"], NAME)
    assert NAME in cluster.airflow.command("airflow", "providers", "get", NAME).stdout


def told(cluster: TestCluster, command: str) -> list[dict[str, Any]]:
    """Return what a command on providers lists; before it, Airflow may log."""
    lines = cluster.airflow.command("airflow", "providers", command, "-o", "json").stdout.splitlines()
    return list(json.loads(next(line for line in lines if line.startswith("[{"))))


@pytest.mark.feature("case and decision")
@pytest.mark.skipif(AIRFLOW < (3, 2), reason="Airflow 3.1 reads no commands of a provider")
def test_airflow_has_the_commands(cluster: TestCluster) -> None:
    """As a group of its own."""
    told = cluster.airflow.command("airflow", "pacifica", "--help").stdout

    assert all(word in told for word in ("case", "ledger"))


@pytest.mark.feature("form")
def test_airflow_s_page_gets_the_form(cluster: TestCluster) -> None:
    """Every field of it, the secret one hidden."""
    page = cluster.airflow.rest("GET", "/connections/hook_meta", root="/ui")
    (form,) = [each for each in page if each["connection_type"] == "pacifica"]

    assert list(form["extra_fields"]) == list(DECLARED["conn-fields"])
    assert form["extra_fields"]["pf_api_key"]["schema"]["format"] == "password"
    assert form["standard_fields"]["login"]["title"] == "Account"


@pytest.mark.feature("Test button")
def test_the_test_button_reads_the_account(cluster: TestCluster) -> None:
    """The connection as its form sends it, checked against the exchange."""
    connection = cluster.payer().connection
    answer = cluster.airflow.rest("POST", "/connections/test", {**connection, "connection_id": "not-stored"})

    assert answer["status"], answer["message"]
    assert "shows its 3 spot balances" in answer["message"]
