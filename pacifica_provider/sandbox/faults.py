"""Faults on demand: what may go wrong, on which request, how often. How they travel is in `responses.py`."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import AfterValidator, Field, StringConstraints

from pacifica_provider.sandbox.payloads import BadControl, Count, MustBe, Payload, Seconds, Whole, read

Route = Literal[
    "withdraw", "pending", "history", "account", "spot_assets", "bridge_info", "bridge_parameters", "solana", "*"
]
ROUTES = tuple(route for route in get_args(Route) if route != "*")
# A lie about the length is what the kind "truncate" is for.
FRAMING = ("content-length", "transfer-encoding", "connection")
COMMON = ("route", "when", "kind", "count", "skip")
# One body may hold all of these: a kind that has no use for one ignores it, and has a default for what it needs.
UNIVERSAL = ("status", "seconds", "bytes", "location")


def _no_framing(name: str) -> str:
    if name.lower() in FRAMING:
        raise ValueError("it would lie about the length")
    return name


HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), AfterValidator(_no_framing)]
HeaderText = Annotated[str, StringConstraints(pattern=r"^([!-~]([ -~]*[!-~])?)?$")]
Bytes = Annotated[int, Field(ge=0), MustBe("a number of bytes")]
StatusCode = Annotated[int, Field(ge=200, le=599), MustBe("a status from 200 to 599")]
RedirectCode = Annotated[int, Field(ge=300, le=399), MustBe("a status from 300 to 399")]
Location = Annotated[HeaderText, MustBe("a printable ASCII URL")]
Headers = Annotated[dict[HeaderName, HeaderText], MustBe("an object of header texts")]
Body = Annotated[str | dict[str, Any] | list[Any] | None, MustBe("text, an object or a list")]
OnlyWithdraw = Annotated[Literal["withdraw"], MustBe("withdraw for this kind")]
Word = Annotated[str, MustBe("text")]


class Fault(Payload):
    """What every kind of fault may be told."""

    needs: ClassVar[tuple[str, ...]] = ()

    route: Annotated[Route, MustBe()] = "withdraw"
    when: Annotated[Literal["before_commit", "after_commit"], MustBe()] = "before_commit"
    kind: str
    count: Count | None = 1
    skip: Whole = 0
    status: Any = None
    seconds: Any = None
    bytes: Any = None
    location: Any = None

    @classmethod
    def takes(cls) -> list[str]:
        """Name the fields that the kind has a use for."""
        fields = cls.model_fields.items()
        return [name for name, field in fields if name not in UNIVERSAL or field.annotation is not Any]

    @property
    def before_commit(self) -> bool:
        """Whether the exchange is not to carry the request out."""
        return self.when == "before_commit"

    @property
    def label(self) -> str:
        """How the ledger names it."""
        return f"{self.kind}/{self.when}"


class Reset(Fault):
    """A TCP RST after so many bytes of the answer, counted from its status line."""

    kind: Literal["reset"]
    bytes: Bytes = 0


class ResetRequest(Fault):
    """A TCP RST while the request is sent, once so many bytes of its body have come in."""

    kind: Literal["reset_request"]
    bytes: Bytes = 0


class Close(Fault):
    """The connection ends properly, without an answer."""

    kind: Literal["close"]


class Hang(Fault):
    """Nothing for so long, then the answer."""

    needs = ("seconds",)
    kind: Literal["hang"]
    seconds: Seconds = 2


class Truncate(Fault):
    """A promise of the whole body, and only so many bytes of it."""

    needs = ("bytes",)
    kind: Literal["truncate"]
    bytes: Bytes = 10


class Drip(Fault):
    """The answer, a byte every so many seconds."""

    needs = ("seconds",)
    kind: Literal["drip"]
    seconds: Seconds = 2


class Status(Fault):
    """That status; without a body an error envelope."""

    needs = ("status",)
    kind: Literal["status"]
    status: StatusCode = 503
    body: Body = None
    headers: Headers = Field(default_factory=dict)


class Html(Fault):
    """A captive portal's page."""

    kind: Literal["html"]
    status: StatusCode = 200


class Redirect(Fault):
    """A redirect."""

    needs = ("location",)
    kind: Literal["redirect"]
    status: RedirectCode = 307
    location: Location = "/elsewhere"


class DuplicateInProgress(Fault):
    """A 409 to a key nobody has used."""

    kind: Literal["duplicate_in_progress"]
    route: OnlyWithdraw = "withdraw"


class Echo(Fault):
    """A receipt with these put into it."""

    kind: Literal["echo"]
    route: OnlyWithdraw = "withdraw"
    symbol: Word = ""
    amount: Word = ""
    fee_amount: Word = ""
    batch_nonce: Any = None


class Huge(Fault):
    """The answer, valid JSON padded to that size."""

    needs = ("bytes",)
    kind: Literal["huge"]
    bytes: Bytes = 10


class NoDate(Fault):
    """The answer without its `Date`; always carried out."""

    kind: Literal["no_date"]


AnyFault: TypeAlias = Annotated[
    Reset
    | ResetRequest
    | Close
    | Hang
    | Truncate
    | Drip
    | Status
    | Html
    | Redirect
    | DuplicateInProgress
    | Echo
    | Huge
    | NoDate,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Fault]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model for model in get_args(get_args(AnyFault)[0])
}


def read_fault(call: str, body: object) -> Fault:
    """Return the fault that a body describes, or say what is wrong with it."""
    kind = body.get("kind") if isinstance(body, dict) else ""
    if not isinstance(body, dict) or not isinstance(kind, str) or kind not in KINDS:
        raise BadControl(f"{call}: 'kind' must be one of {', '.join(KINDS)}")
    return read(f"{call} of kind {kind}", KINDS[kind], body)


class Armed:
    """A fault waiting for its requests."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen = 0

    @property
    def hits(self) -> int:
        """How many requests it has hit."""
        return max(0, self.seen - self.fault.skip)

    @property
    def spent(self) -> bool:
        """Whether it has hit all the requests it was meant for."""
        return self.fault.count is not None and self.hits >= self.fault.count

    def meets(self, route: str) -> bool:
        """Count a request, and say whether the fault hits it."""
        if self.spent or self.fault.route not in ("*", route):
            return False
        self.seen += 1
        return self.seen > self.fault.skip

    def as_json(self) -> dict[str, object]:
        """Return what it was told, what it needs, and the number of requests it has hit."""
        fault = self.fault
        shown = {*COMMON, *fault.needs, *fault.model_fields_set}.intersection(fault.takes())
        told = {name: getattr(fault, name) for name in fault.takes() if name in shown}
        return {**told, "hits": self.hits, "spent": self.spent}


class Faults:
    """The faults in the order they were asked for, spent ones too."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []

    def add(self, fault: Fault) -> None:
        """Arm one more."""
        self._armed.append(Armed(fault))

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def take(self, route: str) -> Fault | None:
        """Return the fault that a request to `route` meets: the first that hits it, and only that one."""
        return next((armed.fault for armed in self._armed if armed.meets(route)), None)

    def as_json(self) -> list[dict[str, object]]:
        """Return all of them."""
        return [armed.as_json() for armed in self._armed]
