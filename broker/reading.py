"""From bytes to an understood request, with everything that is wrong with it told at once."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from broker.errors import Forbidden, Malformed, Problem, Refused
from broker.ports import Adapter, Needs
from fhir_profiles import faults, strict_json


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
    adapter: Adapter, raw: Mapping[str, Any], organisation: str, now: datetime
) -> tuple[Any, Needs]:
    """Return the request and what it needs. Raises Refused, naming every problem at once."""
    try:
        request = adapter.accepts.model_validate(raw, context={"now": now})
    except ValidationError as error:
        problems = [
            Problem(fault.field, fault.code, fault.detail, fault.todo)
            for fault in faults.to_problems(error, adapter.accepts)
        ]
        raise refusal(adapter, raw, problems) from None
    needs = adapter.needs(request, now)
    own(needs.organisation, organisation)
    return request, needs


def own(said: str, organisation: str) -> None:
    """Raise Forbidden unless a body comes from the organisation that its token is for."""
    if said != organisation:
        raise Forbidden(
            f"The body says it comes from {said}; this token is for {organisation}. Nothing was "
            "stored. Get a token for the organisation that sends."
        )


def refusal(
    adapter: Adapter, raw: Mapping[str, Any], problems: list[Problem], telephone: str | None = None
) -> Refused:
    """Return the refusal of a body; one that spoke of danger begins "Nothing was sent.".

    Whom to telephone is then said as the pillar's words have it, 999 and A&E with it, and after
    that with the number that `telephone` knows.
    """
    danger = adapter.danger(raw)
    if danger is None:
        return Refused.all_of(problems)
    return Refused.all_of(problems, "Nothing was sent.", danger, *filter(None, [telephone]))
