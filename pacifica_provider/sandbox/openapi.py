"""The description of the sandbox as OpenAPI 3.1, made of the models and the functions that answer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from pacifica_provider.sandbox.responses import JSON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic.json_schema import JsonSchemaMode

REFERENCE = "#/components/schemas/{model}"


class WrongCall(TypedDict):
    """What the control interface answers to a wrong call."""

    error: str


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One method of one path.

    `answers` is the function whose docstring and return type describe it; `body` is a type, as in a signature;
    `errors` has the type of the body of each status, by content type.
    """

    method: str
    path: str
    name: str
    tag: str
    answers: Callable[..., Mapping[str, Any]]
    body: Any = None
    errors: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def describe(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the description of all of them."""
    wanted: dict[str, tuple[JsonSchemaMode, Any]] = {}
    for each in operations:
        if each.body is not None:
            wanted[f"{each.name} body"] = ("validation", each.body)
        wanted[f"{each.name} 200"] = ("serialization", inspect.get_annotations(each.answers)["return"])
        for status, bodies in each.errors.items():
            for content_type, kind in bodies.items():
                wanted[f"{each.name} {status} {content_type}"] = ("serialization", kind)
    schemas, definitions = TypeAdapter.json_schemas(
        [(name, mode, TypeAdapter(kind)) for name, (mode, kind) in wanted.items()],
        ref_template=REFERENCE,
    )
    found = {name: schema for (name, _), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The sandbox of airflow-provider-pacifica",
            "version": "1",
            "description": "Pacifica's endpoints for spot withdrawals, and the sandbox's control interface. An armed "
            "fault may answer any request with anything.",
        },
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {})},
    }


def _operation(each: Operation, found: Mapping[str, Any]) -> dict[str, Any]:
    responses = {"200": _answer("As asked.", {JSON: found[f"{each.name} 200"]})}
    for status, bodies in each.errors.items():
        contents = {content_type: found[f"{each.name} {status} {content_type}"] for content_type in bodies}
        responses[str(status)] = _answer("Refused.", contents)
    described: dict[str, Any] = {
        "operationId": each.name,
        "tags": [each.tag],
        "summary": (inspect.getdoc(each.answers) or "").partition("\n")[0],
        "parameters": [_parameter(each, name, schema) for name, schema in each.parameters.items()],
        "responses": responses,
    }
    if each.body is not None:
        whole = TypeAdapter(each.body).json_schema()
        described["requestBody"] = {
            "required": "properties" not in whole or "required" in whole,
            "content": {JSON: {"schema": found[f"{each.name} body"]}},
        }
    return described


def _answer(words: str, contents: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {name: {"schema": schema} for name, schema in contents.items()}}


def _parameter(each: Operation, name: str, schema: Mapping[str, object]) -> dict[str, Any]:
    in_path = f"{{{name}}}" in each.path
    return {
        "name": name,
        "in": "path" if in_path else "query",
        "required": in_path or name == "account",
        "schema": dict(schema),
    }
