"""The connection form: one source, read by Airflow 3.3's page and by the hook's methods for 3.1."""

from __future__ import annotations

import json
import sys
from importlib import metadata, resources
from types import ModuleType
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # has no stubs here; Airflow brings it
import pytest

from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.get_provider_info import get_provider_info
from pacifica_provider.hooks.pacifica import PacificaHook
from pacifica_provider.hooks.settings import EXTRAS, ConnectionSettings

(DECLARED,) = get_provider_info()["connection-types"]
FIELDS: dict[str, dict[str, Any]] = DECLARED["conn-fields"]
ACCOUNT = "FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z"


class Field:
    """A field of WTForms, as far as a form declares it."""

    def __init__(self, label: str, validators: list[Any], description: str) -> None:
        self.label = label
        self.validators = validators
        self.description = description


class IntegerField(Field):
    """A number."""


class PasswordField(Field):
    """A secret."""


class StringField(Field):
    """A text."""


class Validator:
    """A validator of WTForms with its arguments."""

    def __init__(self, *values: Any) -> None:
        self.values = values


@pytest.fixture
def wtforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install what Airflow 3.1 has of WTForms, and nothing more: another kind of field takes its whole form away."""
    forms, validators = ModuleType("wtforms"), ModuleType("wtforms.validators")
    for kind in (IntegerField, PasswordField, StringField):
        setattr(forms, kind.__name__, kind)
    for name in ("NumberRange", "Optional", "any_of"):
        setattr(validators, name, type(name, (Validator,), {}))
    monkeypatch.setitem(sys.modules, "wtforms", forms)
    monkeypatch.setitem(sys.modules, "wtforms.validators", validators)


def test_the_provider_info_fits_airflow_s_schema() -> None:
    """What Airflow validates at start is valid."""
    schema = json.loads((resources.files("airflow") / "provider_info.schema.json").read_text())

    assert jsonschema.validate(get_provider_info(), schema) is None


def test_the_form_offers_exactly_the_extras_that_are_read() -> None:
    """No field of the form is refused, and none that is read is missing."""
    assert tuple(FIELDS) == EXTRAS


def test_secrets_have_password_fields() -> None:
    """Airflow shows and returns everything else in the clear (S09)."""
    secret = {name for name, field in FIELDS.items() if field["schema"].get("format") == "password"}

    assert secret == {"pf_api_key", "solana_rpc_url"}
    assert "password" not in DECLARED["ui-field-behaviour"]["hidden-fields"]
    assert "extra" in DECLARED["ui-field-behaviour"]["hidden-fields"]


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if "minimum" in field["schema"]])
def test_the_bounds_of_the_form_are_those_that_are_checked(name: str) -> None:
    """What the form lets through is accepted, and the next value beyond is refused (both from one page)."""
    schema = FIELDS[name]["schema"]

    def accepts(value: float) -> bool:
        try:
            ConnectionSettings.parse(
                login=ACCOUNT, host=None, port=None, schema=None, extra={"environment": "testnet", name: value}
            )
        except ConfigurationError as error:
            return name not in str(error)
        return True

    bounds = [schema["minimum"] - 1, schema["minimum"], schema["maximum"], schema["maximum"] + 1]
    assert [accepts(value) for value in bounds] == [False, True, True, False]


@pytest.mark.parametrize("environment", FIELDS["environment"]["schema"]["enum"])
def test_every_environment_of_the_form_is_known(environment: str) -> None:
    """The list to choose from holds nothing that is refused."""
    host = "https://exchange.example" if environment == "custom" else None
    settings = ConnectionSettings.parse(
        login=ACCOUNT, host=host, port=None, schema=None, extra={"environment": environment}
    )

    assert settings.environment == environment


def test_an_empty_form_field_may_be_stored_as_null() -> None:
    """Airflow's page stores null for a field left empty, so every type allows it but that of the required one."""
    required = [name for name, field in FIELDS.items() if "null" not in field["schema"]["type"]]

    assert required == ["environment"]


def test_airflow_masks_the_api_config_key_by_its_name() -> None:
    """Where a connection is shown with its extra, by the page or by the API, Airflow looks at names alone (S09)."""
    from airflow.providers.common.compat.sdk import redact

    shown = redact({"pf_api_key": "hush", "environment": "testnet"})

    assert shown == {"pf_api_key": "***", "environment": "testnet"}


def test_airflow_masks_the_rpc_s_address_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name that Airflow knows is in that of the field; its own setting adds it, as docs/connection.md says."""
    from airflow._shared.secrets_masker import SecretsMasker

    shown = {}
    for more in ([], ["solana_rpc_url"]):
        masker = SecretsMasker()
        masker.sensitive_variables_fields = [*masker.sensitive_variables_fields, *more]
        shown[bool(more)] = masker.redact({"solana_rpc_url": "https://hush"})

    assert shown == {False: {"solana_rpc_url": "https://hush"}, True: {"solana_rpc_url": "***"}}


@pytest.mark.usefixtures("wtforms")
def test_the_hook_s_widgets_come_from_the_same_source() -> None:
    """Airflow 3.1 gets the same fields, labels and descriptions, in kinds of field that it knows."""
    widgets = PacificaHook.get_connection_form_widgets()
    kinds = {name: type(widget).__name__ for name, widget in widgets.items() if type(widget) is not StringField}

    assert list(widgets) == list(FIELDS)
    assert {name: widget.label for name, widget in widgets.items()} == {
        name: field["label"] for name, field in FIELDS.items()
    }
    assert all(widget.description.startswith(FIELDS[name]["description"]) for name, widget in widgets.items())
    passwords = dict.fromkeys(("pf_api_key", "solana_rpc_url"), "PasswordField")
    assert kinds == {**passwords, "expiry_window_ms": "IntegerField"}


@pytest.mark.usefixtures("wtforms")
def test_the_hook_s_widgets_carry_choices_and_bounds() -> None:
    """The environments to choose from and the limits of the window are declared once."""
    widgets = PacificaHook.get_connection_form_widgets()
    (choices,) = widgets["environment"].validators
    optional, bounds = widgets["expiry_window_ms"].validators

    assert choices.values == (["testnet", "mainnet", "custom"],)
    assert bounds.values == (1000, 30_000)
    assert type(optional).__name__ == "Optional"


def test_the_hook_s_field_behaviour_is_the_declared_one() -> None:
    """Airflow 3.1 gets it under names with underscores."""
    behaviour = PacificaHook.get_ui_field_behaviour()

    assert behaviour == {
        "hidden_fields": DECLARED["ui-field-behaviour"]["hidden-fields"],
        "relabeling": DECLARED["ui-field-behaviour"]["relabeling"],
        "placeholders": DECLARED["ui-field-behaviour"]["placeholders"],
    }


def test_the_declared_hook_is_this_one() -> None:
    """Class path, type and name agree with the hook's own attributes."""
    assert DECLARED["hook-class-name"] == f"{PacificaHook.__module__}.{PacificaHook.__qualname__}"
    assert DECLARED["connection-type"] == PacificaHook.conn_type
    assert DECLARED["hook-name"] == PacificaHook.hook_name


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")  # Airflow 3.2 of itself
def test_airflow_s_page_gets_the_whole_form() -> None:
    """What the endpoint behind Airflow 3.3's connection page returns is the declared form, nothing lost."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (meta,) = [meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "pacifica"]
    page = meta.model_dump()
    extras, standard = page["extra_fields"], page["standard_fields"]

    assert (meta.hook_name, meta.hook_class_name) == ("Pacifica", DECLARED["hook-class-name"])
    assert list(extras) == list(FIELDS)
    assert extras["environment"]["schema"]["enum"] == ["testnet", "mainnet", "custom"]
    assert extras["pf_api_key"]["schema"]["format"] == "password"
    assert standard["login"]["title"] == "Account"
    assert standard["password"]["title"] == "Private key"
    assert (standard["port"]["hidden"], standard["url_schema"]["hidden"]) == (False, True)
    assert standard["host"]["placeholder"] == "only with Environment custom"


def test_the_provider_is_found_by_its_entry_point() -> None:
    """Airflow finds the function, and calls it without importing anything else of the package."""
    (point,) = metadata.entry_points(group="apache_airflow_provider", name="provider_info").select(
        module="pacifica_provider.get_provider_info"
    )

    assert point.load() is get_provider_info
