"""How errors are told under `/FHIR/R4`: one OperationOutcome with every problem.

`details` is a code of NHS England's `http-error-codes`, `diagnostics` a sentence for developers
and logs; no value of a message is repeated in it. BaRS Core 1.5.0, error handling.
"""

from typing import Any, Final

from starlette.responses import Response

from broker.api.told import Told
from broker.errors import ANSWERS, Answer
from fhir_profiles import codes, strict_json

BASE: Final = "/FHIR/R4"
MEDIA_TYPE: Final = "application/fhir+json"
_PROFILE: Final = f"{codes.UK_CORE}UKCore-OperationOutcome"
_CODES: Final = codes.system("http-error-code")
_ISSUE_TYPES: Final = codes.core("http://hl7.org/fhir/issue-type")
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


def outcome(told: Told) -> Response:
    """Return an error as an OperationOutcome."""
    usual = ANSWERS.get(told.code, _REFUSED)
    status = told.status or usual.status
    body = {
        "resourceType": "OperationOutcome",
        "meta": {"profile": [_PROFILE]},
        "issue": _issues(usual, told),
    }
    return Response(strict_json.dumps(body), status, dict(told.headers), media_type=MEDIA_TYPE)


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
