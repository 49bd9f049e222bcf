"""From bytes to an understood request, with everything that is wrong with it told at once."""

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from broker import routing
from broker.directory import Directory
from broker.errors import Forbidden, Malformed, Problem, Refused, TooEarly
from broker.ports import Adapter, Needs, Translator
from fhir_profiles import faults, strict_json

# How the refusal of anything urgent begins.
NOTHING: Final = "Nothing was sent."


def read_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object in the one way it can be read. Raises Malformed."""
    try:
        raw = strict_json.loads(body)
    except strict_json.NotStrictJson as error:
        raise Malformed(str(error)) from None
    if not isinstance(raw, dict):
        raise Malformed("The body must be a JSON object.")
    return raw


def understand(
    adapter: Adapter,
    raw: Mapping[str, Any],
    organisation: str,
    directory: Directory,
    now: datetime,
    sent_at: datetime | None = None,
) -> tuple[Any, Needs]:
    """Return the request and what it needs. Raises Refused, naming every problem at once.

    `sent_at` is when that which it corrects was first sent: what had to be sent in time, was then.
    """
    try:
        request = adapter.accepts.model_validate(raw, context={"now": now})
    except ValidationError as error:
        problems = [
            Problem(fault.field, fault.code, fault.detail, fault.todo)
            for fault in faults.to_problems(error, adapter.accepts)
        ]
        problems += _missed(adapter, raw, [one.field for one in problems], directory, now)
        raise Refused.all_of(problems) from None
    needs = adapter.needs(request, sent_at or now)
    own(needs.organisation, organisation)
    return request, needs


def _missed(
    adapter: Adapter,
    raw: Mapping[str, Any],
    at_fault: Sequence[str],
    directory: Directory,
    now: datetime,
) -> Iterator[Problem]:
    """Yield what routing misses of a body with faults, unless it hangs on one of these itself."""
    seek, paths = adapter.sought(raw), adapter.paths
    if seek is not None and any(_touch(at_fault, path) for path in paths.deciding):
        # What is sought is not known: only of a place that is named can anything be said.
        seek = replace(seek, receiver_type="") if seek.named is not None else None
    problem = routing.missed(seek, directory, paths, now) if seek is not None else None
    if problem is not None and not _touch(at_fault, problem.field):
        yield problem


def _touch(fields: Iterable[str], path: str) -> bool:
    """Tell whether one of the fields is at a path, in it or around it."""
    return any(_within(field, path) or _within(path, field) for field in fields)


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith((f"{outer}.", f"{outer}["))


def own(said: str, organisation: str) -> None:
    """Raise Forbidden unless a body comes from the organisation that its token is for."""
    if said != organisation:
        raise Forbidden(
            f"The body says it comes from {said}; this token is for {organisation}. Nothing was "
            "stored. Get a token for the organisation that sends."
        )


@asynccontextmanager
async def telling_danger(
    adapter: Adapter,
    body: bytes,
    directory: Callable[[], Awaitable[Directory]],
    *,
    is_correction: bool = False,
) -> AsyncIterator[None]:
    """Make every refusal of a body that speaks of danger begin "Nothing was sent. Telephone …".

    Also one that came before the body was understood: a key used before, a version gone by, a
    token for another organisation. Where the patient refuses that anybody is told, it begins with
    that nobody has been; but a correction's does not, for somebody was told before.
    """
    try:
        yield
    except TooEarly:
        raise  # the same post is being taken in at this moment
    except Refused as refused:
        is_told = refused.detail.startswith(NOTHING)
        danger = None if is_told else await _danger(adapter, body, directory, is_correction)
        if danger is None:
            raise
        raise refused.after(danger) from refused


async def _danger(
    adapter: Adapter,
    body: bytes,
    directory: Callable[[], Awaitable[Directory]],
    is_correction: bool,
) -> str | None:
    try:
        raw = read_object(body)
    except Malformed:
        return None
    danger, withheld = adapter.danger(raw), adapter.withheld(raw)
    if danger is None:
        return None
    if withheld is not None:
        return None if is_correction else " ".join(withheld.read_first)
    whom = routing.whom_to_telephone(adapter.sought(raw), await directory(), datetime.now(UTC))
    return " ".join(filter(None, [NOTHING, danger, whom]))


def refusal(
    translator: Translator, raw: Mapping[str, Any], problems: list[Problem], telephone: str
) -> Refused:
    """Return the refusal of a body; one that spoke of danger begins "Nothing was sent.".

    Whom to telephone is then said as the pillar's words have it, 999 and A&E with it, and after
    that with the number that `telephone` knows.
    """
    danger = translator.danger(raw)
    if danger is None:
        return Refused.all_of(problems)
    return Refused.all_of(problems, NOTHING, danger, *filter(None, [telephone]))


def unknown_code(field: str, given: object, todo: str) -> Problem:
    """Return the problem of a code that is missing or none of those known; never says it back."""
    what = "given" if given is None else "one of those known here"
    return Problem(field, "unknown-code", f"{field} is not {what}.", todo)
