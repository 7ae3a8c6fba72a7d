"""The bodies of the control interface: strict models, whose errors name the field in one plain sentence."""

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

DECIMAL = re.compile(r"[0-9]{1,28}(\.[0-9]{1,28})?", re.ASCII)
# What is much larger has no place in a float once it is milliseconds.
LARGEST = 10**30


class BadControl(ValueError):
    """A control call that asks for something that does not exist; its text names it."""


class BadValue(ValueError):
    """A value that is not what it must be."""


@dataclass(frozen=True, slots=True)
class MustBe:
    """Says in words what a value has to be: in the error, and in the description. A choice says it by itself."""

    words: str = ""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> Any:
        words = self.words or f"one of {', '.join(get_args(source))}"

        def check(value: object, inner: ValidatorFunctionWrapHandler) -> object:
            try:
                return inner(value)
            except ValidationError as problem:
                if _bad_value(problem):  # a value inside of this one has its own words
                    raise
                raise BadValue(f"must be {words}") from None

        return WrapValidator(check).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), **({"description": self.words} if self.words else {})}


def _bad_value(problem: ValidationError) -> BadValue | None:
    error = problem.errors()[0].get("ctx", {}).get("error")
    return error if isinstance(error, BadValue) else None


def _decimal(value: object) -> Decimal:
    if not isinstance(value, str) or not DECIMAL.fullmatch(value):
        raise ValueError("no decimal text")
    return Decimal(value)


Text = Annotated[str, Field(min_length=1), MustBe("text")]
Flag = Annotated[bool, MustBe("true or false")]
Whole = Annotated[int, Field(ge=0), MustBe("a whole number")]
Count = Annotated[int, Field(gt=0), MustBe("a whole number above zero")]
ZeroOrMore = Annotated[int, Field(ge=0, le=LARGEST)] | Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Seconds = Annotated[ZeroOrMore, MustBe("a number of seconds")]
Amount = Annotated[
    Decimal,
    BeforeValidator(_decimal),
    WithJsonSchema({"type": "string", "pattern": f"^{DECIMAL.pattern}$"}),
    MustBe('decimal text such as "1.5"'),
]


class Payload(BaseModel):
    """A body: nothing but its fields, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def takes(cls) -> list[str]:
        """Name the fields."""
        return list(cls.model_fields)


class NoPayload(Payload):
    """The body of a call that takes none."""


P = TypeVar("P", bound=Payload)


def read(call: str, model: type[P], body: object) -> P:
    """Return the body of a call, or say what is wrong with it. No value is repeated: it may be a secret."""
    if not isinstance(body, dict):
        raise BadControl(f"{call}: the body must be a JSON object")
    try:
        return model.model_validate(body)
    except ValidationError as problem:
        raise BadControl(_sentence(call, model, problem)) from None


def _sentence(call: str, model: type[Payload], problem: ValidationError) -> str:
    error, bad_value = problem.errors()[0], _bad_value(problem)
    name = ".".join(map(str, error["loc"]))
    if bad_value is not None:
        return f"{call}: {name!r} {bad_value}"
    if error["type"] == "missing":
        return f"{call}: {name!r} is missing"
    if error["type"] == "extra_forbidden":
        return f"{call} takes no {name!r}; it takes {', '.join(model.takes()) or 'no body'}"
    return f"{call}: the body must be a JSON object, and its names Unicode"
