"""How errors are told under `/FHIR/R4`: one OperationOutcome with every problem.

`details` is a code of NHS England's `http-error-codes`, `diagnostics` a sentence for developers
and logs; no value of a message is repeated in it. BaRS Core 1.5.0, error handling.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from broker.api.told import Told
from broker.errors import ANSWERS, Answer, Problem
from fhir_profiles import codes, strict_json

BASE: Final = "/FHIR/R4"
MEDIA_TYPE: Final = "application/fhir+json"
# FHIR demands that the encoding is said: R4, section 3.1.0.1.11.
CONTENT_TYPE: Final = f"{MEDIA_TYPE}; charset=utf-8"
_PROFILE: Final = f"{codes.UK_CORE}UKCore-OperationOutcome"
_CODES: Final = codes.system("http-error-code")
_ISSUE_TYPES: Final = codes.core("issue-type")
_TYPES: Final = codes.core("resource-types")
ID: Final = r"[A-Za-z0-9.-]{1,64}"
"""What can be an id in FHIR."""
# What FHIR and BaRS know below the base: offered or not, it is not unknown.
_INTERACTIONS: Final = tuple(
    (methods.split(), re.compile(pattern))
    for methods, pattern in (
        ("POST", ""),
        ("GET", "/_history"),
        ("GET POST PUT PATCH DELETE", "/(?P<type>[A-Za-z]+)"),
        ("POST", "/(?P<type>[A-Za-z]+)/_search"),
        ("GET", "/(?P<type>[A-Za-z]+)/_history"),
        ("GET PUT PATCH DELETE", f"/(?P<type>[A-Za-z]+)/{ID}"),
        ("GET", f"/(?P<type>[A-Za-z]+)/{ID}/_history(/{ID})?"),
    )
)
# What our own codes of problems are called in FHIR; any other is told as the whole error is.
_CALLED: Final = {
    "missing": "required",
    "unknown-code": "code-invalid",
    **dict.fromkeys(("does-not-take", "not-connected", "closed"), "not-supported"),
}
_REFUSED: Final = Answer(400, "", "invalid", "REC_BAD_REQUEST")


def is_fhir(path: str) -> bool:
    """Whether this is one of FHIR's doors, known or not."""
    return path == BASE or path.startswith(f"{BASE}/")


def absent(request: Request, error: HTTPException) -> Told | None:
    """Return how it is told that there is no such door: 501 where FHIR or BaRS knows it, 405 where
    other methods have it, else 404. None where the framework refuses for another reason."""
    if error.status_code not in {404, 405}:
        return None
    scope = request.scope
    if _is_known(scope["method"], scope["path"].removeprefix(BASE)):
        said = "FHIR knows this interaction; it is not offered here. GET /FHIR/R4/metadata says"
        return Told("not-implemented", f"{said} what is.")
    allowed = sorted(set(_methods(request.app.state.fhir_routes, scope)))
    if allowed:
        said = f"This takes {', '.join(allowed)}."
        return Told("method-not-allowed", said, headers={"Allow": ", ".join(allowed)})
    return Told("not-found", "There is nothing at this path. GET /FHIR/R4/metadata says what is.")


def _is_known(method: str, below: str) -> bool:
    for methods, pattern in _INTERACTIONS:
        found = pattern.fullmatch(below)
        if found is not None and method in methods:
            return found.groupdict().get("type") in {None, *_TYPES}
    return False


def _methods(routes: Iterable[BaseRoute], scope: Scope) -> Iterator[str]:
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            yield from getattr(route, "methods", None) or ()


def outcome(told: Told) -> Response:
    """Return an error as an OperationOutcome."""
    usual = ANSWERS.get(told.code, _REFUSED)
    status = told.status or usual.status
    headers = {"Content-Type": CONTENT_TYPE, **told.headers}
    return Response(_written(_issues(usual, told)), status, headers)


def warnings(problems: Sequence[Problem]) -> bytes:
    """Return the OperationOutcome that goes with an answer which is no error."""
    issues = _issues(_REFUSED, Told("", "", problems))
    for issue in issues:
        del issue["details"]  # NHS England's codes are of errors
    return _written([issue | {"severity": "warning"} for issue in issues])


def _written(issues: Sequence[Mapping[str, Any]]) -> bytes:
    body = {"resourceType": "OperationOutcome", "meta": {"profile": [_PROFILE]}, "issue": issues}
    return strict_json.dumps(body)


def _issues(answer: Answer, told: Told) -> list[dict[str, Any]]:
    """Return an issue for each problem; one that says the whole where there is none."""
    if not told.problems:
        return [_issue(answer, answer.fhir_issue, told.detail)]
    return [
        _issue(
            answer,
            one.code if one.code in _ISSUE_TYPES else _CALLED.get(one.code, answer.fhir_issue),
            " ".join(filter(None, [told.detail if number == 0 else "", one.detail, one.todo])),
            one.field,
        )
        for number, one in enumerate(told.problems)
    ]


def _issue(answer: Answer, kind: str, diagnostics: str, expression: str = "") -> dict[str, Any]:
    code = answer.nhs_code
    coding = {"system": _CODES.url, "code": code, "display": _CODES.display(code)}
    issue: dict[str, Any] = {
        "severity": "error",
        "code": kind,
        "details": {"coding": [coding]},
        "diagnostics": diagnostics,
    }
    return {**issue, "expression": [expression]} if expression else issue
