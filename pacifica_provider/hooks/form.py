"""The connection form as Airflow 3.1 reads it, made from the dictionary that later versions read."""

from __future__ import annotations

import json
from typing import Any

from pacifica_provider.get_provider_info import get_provider_info


def field_behaviour() -> dict[str, Any]:
    """Return hidden fields, labels and placeholders under the names that Airflow 3.1 uses."""
    declared = _declared()["ui-field-behaviour"]
    return {name.replace("-", "_"): value for name, value in declared.items()}


def widgets() -> dict[str, Any]:
    """
    Return one WTForms field an extra; Airflow calls this only where it has WTForms.

    Whatever cannot be said in a widget (limits of numbers) is checked by ``hooks/settings.py`` all the same.
    """
    # Airflow 3.1 knows these three kinds of field and no other: one it does not know takes the whole form away.
    from wtforms import IntegerField, PasswordField, StringField  # type: ignore[import-untyped]  # only 3.1 has it
    from wtforms.validators import NumberRange, Optional, any_of  # type: ignore[import-untyped]  # only 3.1 has it

    def field(spec: dict[str, Any]) -> Any:
        schema = spec["schema"]
        text = {"label": spec["label"], "description": spec["description"]}
        optional = [Optional()]
        if schema.get("format") == "password":
            return PasswordField(**text, validators=optional)
        if "integer" in schema["type"]:
            bounds = NumberRange(schema.get("minimum"), schema.get("maximum"))
            return IntegerField(**text, validators=[*optional, bounds])
        if "enum" in schema:
            choices = any_of(schema["enum"])
            text["description"] += f" One of {json.dumps(schema['enum'])}."
            return StringField(**text, validators=[choices])
        return StringField(**text, validators=optional)

    return {name: field(spec) for name, spec in _declared()["conn-fields"].items()}


def _declared() -> dict[str, Any]:
    declared: dict[str, Any] = get_provider_info()["connection-types"][0]
    return declared
