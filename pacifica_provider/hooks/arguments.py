"""
What can be known to be wrong of an argument: when the DAG is parsed, or when its template is rendered.

Operator, sensor, asset watcher and hook check by one table, so an argument is refused everywhere in the same words.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, UndefinedError

from pacifica_provider.api.amounts import parse_amount, shown
from pacifica_provider.api.models import parse_batch_nonce
from pacifica_provider.api.signing import looks_like_a_key
from pacifica_provider.exceptions import ConfigurationError
from pacifica_provider.hooks.failures import without_retry
from pacifica_provider.withdrawals.identity import MISSING, Order, check_reference
from pacifica_provider.withdrawals.sweep import ALL, parse_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

LONGEST_WAIT = timedelta(days=366)
LONGEST_WAIT_S = LONGEST_WAIT.total_seconds()
NOTHING_SENT = "Nothing was sent."
NOTHING_BY_THIS_TRY = "Nothing was sent by this try."
NOTHING_NOW = "Nothing was sent now; a withdrawal that this task made before stands."
_TEMPLATE_MARKS = ("{{", "{%", "{#")
_TEMPLATES = Environment()  # noqa: S701 - it only parses
_NO_REFERENCE = (
    "withdrawal_ref is missing: a mapped withdrawal needs one, unique in the run, such as an invoice number, since its "
    "place in the list changes when the list does."
)
_LONGEST_CONN_ID = 250  # Airflow's own limit


def is_known(value: object) -> bool:
    """Say whether an argument is what it will be, not a template or another task's result."""
    if isinstance(value, str):
        return not any(mark in value for mark in _TEMPLATE_MARKS)
    # What Airflow fills in later has a method to do so; so has a path, which is no text.
    return isinstance(value, os.PathLike) or not hasattr(value, "resolve")


def refuse_wrong(
    owner: str,
    given: Mapping[str, object],
    *,
    says: str = NOTHING_SENT,
    rendered: bool = False,
    templates: Environment | None = None,
) -> None:
    """
    Refuse the first argument that is known to be wrong; of a template, only its syntax can be.

    :param owner: whose arguments they are, as the message begins with it.
    :param says: how the message ends.
    :param rendered: no template is left that anything would render.
    :param templates: what would render the templates, where that is known.
    :raises ConfigurationError: which Airflow does not retry, since a mapped task is only made when it runs.
    """
    for name, value in given.items():
        try:
            if rendered or name not in _TEMPLATED or is_known(value):
                _CHECKS[name](name, value)
            elif isinstance(value, str) and templates is not None:
                _check_syntax(name, value, templates)
        except ConfigurationError as error:
            raise _refusal(owner, str(error), says) from None


def refuse_parts_of_no_sweep(owner: str, given: Mapping[str, object], *, says: str) -> None:
    """Refuse ``reserve`` and ``minimum`` beside an amount that is known to be none of a sweep."""
    parts = [name for name in ("reserve", "minimum") if given.get(name) is not None]
    if parts and is_known(given["amount"]) and given["amount"] != ALL:
        raise _refusal(owner, f"{' and '.join(parts)} can only be given with amount='all'.", says)


def check_withdrawal_ref(value: object) -> None:
    """
    Refuse a reference that would be the same for every payment: one for a missing value, or a template still.

    :raises ConfigurationError: saying so; it is not repeated.
    """
    missing = isinstance(value, str) and value.strip() in MISSING
    check_reference(None if missing else value)
    if not is_known(value):
        raise ConfigurationError(
            "withdrawal_ref is a template that was not rendered: Airflow renders the template fields of an operator, "
            f"and nothing else. {NOTHING_SENT}"
        )


def render_each(
    owner: str, parent: object, names: Iterable[str], render: Callable[[str], None]
) -> ConfigurationError | None:
    """
    Render field by field, and return what is wrong with the first that cannot be rendered, by the name of its field.

    It is for ``execute`` to raise: a deferred task is rendered again when it resumes, and needs none of the fields any
    more. Airflow renders a mapped task by the same method.
    """
    first = None
    for name in names:
        try:
            with _rendering(owner, parent, name):
                render(name)
        except ConfigurationError as error:
            first = first or error
    return first


@contextmanager
def _rendering(owner: str, parent: object, name: str) -> Iterator[None]:
    """
    Name the field whose template cannot be rendered, or becomes None; a retry would render the same, so there is none.

    Airflow has logged the template and jinja's own error by then, with secrets masked.
    """
    before = getattr(parent, name)
    try:
        yield
    except UndefinedError as error:
        # Such as "'dict object' has no attribute 'amount'", or "'amount' is undefined".
        missing = str(error).split("'")[-2:-1]
        what = f"'{missing[0]}', which" if missing else "a value that"
        text = (
            f"{name} is a template that asks for {what} is not there: look at the run's conf, at params, and at what "
            "the task before returned."
        )
    except TemplateSyntaxError:
        text = _syntax_text(name)
    except (TemplateError, TypeError, ArithmeticError) as error:
        text = f"{name} is a template that cannot be rendered ({type(error).__name__}): look at what it calculates."
    else:
        if before is None or getattr(parent, name) is not None:
            return
        text = f"{name} is given, and has become None: look at what the task before returned."
    raise _refusal(owner, text, NOTHING_NOW) from None


def refuse_without_reference(task: Any, says: str) -> None:
    """Refuse a task without a reference where it is known to be mapped, since its group is."""
    if task.get_closest_mapped_task_group() is not None:
        raise _refusal(type(task).__name__, _NO_REFERENCE, says)


def templates_of(task: Any) -> Environment | None:
    """Return what would render a task's templates, if its DAG is known already."""
    dag = task.get_dag()
    # The author's own jinja options may allow another syntax.
    return None if dag is None or dag.jinja_environment_kwargs else _TEMPLATES


def _refusal(owner: str, text: str, says: str) -> ConfigurationError:
    """Return the error that Airflow does not retry, with the sentence about the money at its end."""
    return without_retry(ConfigurationError(f"{owner}: {text.removesuffix(NOTHING_SENT).rstrip()} {says}"))


def _syntax_text(name: str) -> str:
    return f"{name} is a template with a mistake in its syntax, such as a missing brace or an unknown filter."


def _check_syntax(name: str, text: str, templates: Environment) -> None:
    try:
        templates.parse(text)
    except TemplateSyntaxError:
        raise ConfigurationError(_syntax_text(name)) from None


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {shown(value)}.")


def _is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def _seconds(name: str, value: object) -> None:
    if value == 0 or not _is_number(value, 0, LONGEST_WAIT_S):
        raise ConfigurationError(f"{name} must be a positive number of seconds, not {shown(value)}.")


def _duration(name: str, value: object) -> None:
    if not isinstance(value, timedelta) or not timedelta(0) <= value <= LONGEST_WAIT:
        raise ConfigurationError(f"{name} must be a timedelta of at most {LONGEST_WAIT.days} days, not {shown(value)}.")


def _conn_id(name: str, value: object) -> None:
    usable = isinstance(value, str) and 0 < len(value) <= _LONGEST_CONN_ID and is_known(value)
    if not usable or any(mark.isspace() for mark in str(value)) or looks_like_a_key(str(value)):
        raise ConfigurationError(
            f"{name} must be the id of a connection, not {shown(value)}; white space and templates are no part of it."
        )


def _nonce(name: str, value: object) -> None:
    try:
        parse_batch_nonce(value)
    except ValueError:
        raise ConfigurationError(
            f"{name} must be the receipt's non-negative integer, not {shown(value)}; if it came from a template, "
            "the withdrawing task returned no receipt."
        ) from None


def _unix_ms(name: str, value: object) -> None:
    # What has the size of Unix seconds would mean a day in 1970.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0 or 10**9 <= value < 10**11:
        raise ConfigurationError(f"{name} must be whole Unix milliseconds, not {shown(value)}.")


def _task_ids(name: str, value: object) -> None:
    each = [value] if isinstance(value, str) else value
    if not isinstance(each, (list, tuple)) or not all(isinstance(one, str) and one and is_known(one) for one in each):
        raise ConfigurationError(f"{name} must be the id of a task, or a list of them, not {shown(value)}.")


def _amount(_: str, value: object) -> None:
    if value != ALL:
        parse_amount(value)


_CHECKS: dict[str, Callable[[str, object], object]] = {
    "symbol": lambda _, value: Order.parse(value, "1"),
    "amount": _amount,
    "reserve": parse_part,
    "minimum": parse_part,
    "withdrawal_ref": lambda _, value: check_withdrawal_ref(value),
    "batch_nonce": _nonce,
    "pacifica_conn_id": _conn_id,
    "wait_for_settlement": _flag,
    "deferrable": _flag,
    "allow_backfill": _flag,
    "tag_amount": _flag,
    "approvals": _task_ids,
    "preflight": _flag,
    "dry_run": _flag,
    "settlement_timeout": _duration,
    "poll_interval": _seconds,
    "since": _unix_ms,
}
_TEMPLATED = ("symbol", "amount", "withdrawal_ref", "reserve", "minimum", "batch_nonce")
