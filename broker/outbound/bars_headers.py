"""The headers of a BaRS call (API 1.5.0): who asks whom, and about what kind of message.

They hold codes, ids and names of organisations; nothing of a patient ever.
"""

import base64
from typing import Any, Final

from broker.bars.composing import SOFTWARE, VERSION
from broker.events import read_traceparent
from broker.ports import Delivery
from fhir_profiles import codes, strict_json

CORE: Final = "1.5.0"
FHIR_JSON: Final = "application/fhir+json"


def headers(delivery: Delivery, request: str, source: str, *, core: str = CORE) -> dict[str, str]:
    """Return what every call says. `request` is the X-Request-Id, `core` the Core version wanted,
    `source` the URI by which this broker is known.
    """
    system, value = delivery.target
    sender = delivery.sender
    made = {
        "User-Agent": "referral-broker",
        "Accept": f"{FHIR_JSON}; version={core}",
        "Accept-Encoding": "identity",
        "X-Request-Id": request,
        "X-Correlation-Id": correlation(delivery),
        "NHSD-Target-Identifier": _encoded({"system": system, "value": value}),
        "NHSD-End-User-Organisation": _encoded(
            {
                "resourceType": "Organization",
                "identifier": [{"system": codes.ODS, "value": sender.ods}],
                "name": sender.name or sender.ods,
            }
        ),
        "NHSD-Requesting-Software": _encoded(
            {
                "resourceType": "Device",
                "identifier": [{"system": codes.URI, "value": source}],
                "deviceName": [{"name": SOFTWARE, "type": "manufacturer-name"}],
                "version": [{"value": VERSION}],
            }
        ),
    }
    if trace := read_traceparent(delivery.event.traceparent):
        made["traceparent"] = trace
    return made


def correlation(delivery: Delivery) -> str:
    """Return the X-Correlation-Id: the conversation's, the same over every message of it."""
    return delivery.event.correlation_id or delivery.event.subject


def negotiated(content_type: str) -> str:
    """Return the Core version that an answer was given in, if it is one that we speak; else ours.

    Only the major version must be equal (Content-Negotiation).
    """
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.strip().partition("=")
        found = value.strip('"')
        parts = found.split(".")
        if (
            name.lower() == "version"
            and len(parts) == 3
            and all(part.isascii() and part.isdigit() and len(part) <= 4 for part in parts)
            and parts[0] == CORE.partition(".")[0]
        ):
            return found
    return CORE


def _encoded(value: dict[str, Any]) -> str:
    return base64.b64encode(strict_json.dumps(value)).decode("ascii")
