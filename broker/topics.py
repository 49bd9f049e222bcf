"""The topics, and which event is published on which. A type that is not named here is a bug."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broker.events import (
    DELIVERY_DIED,
    DELIVERY_RECEIVED,
    NOTICE_ISSUED,
    REFERRAL_AMENDED,
    REFERRAL_MOVED,
    REFERRAL_REDIRECTED,
    REFERRAL_SUBMITTED,
    UPDATE_ACKNOWLEDGED,
    UPDATE_SUBMITTED,
    UPDATE_WITHDRAWN,
)

SERVICE_REQUEST: Final = "fhir.ServiceRequest.v1"
COMMUNICATION: Final = "fhir.Communication.v1"
TASK: Final = "fhir.Task.v1"
DELIVERY: Final = "broker.delivery.v1"
DEAD_LETTER: Final = "broker.dead-letter.v1"

DAY: Final = 24 * 3_600
LARGEST_RECORD: Final = 4_194_304
"""Bytes of a record, its key and headers among them. What is larger is not published."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: what it tells, and for how many days it is kept. Retention is a window for readers,
    no archive: every topic can be made again from the ledger."""

    name: str
    about: str
    days: int = 14


TOPICS: Final = (
    Topic(SERVICE_REQUEST, "Referrals as they are sent, amended and redirected."),
    Topic(COMMUNICATION, "Updates for the record, withdrawals and notices."),
    Topic(TASK, "Moves of referrals: received, accepted, redirected, completed, cancelled."),
    Topic(DELIVERY, "What a destination said: it has stored it, filed it or rejected it."),
    Topic(DEAD_LETTER, "Deliveries that are not attempted any more.", days=90),
)

TOPIC_OF: Final[Mapping[str, str]] = {
    REFERRAL_SUBMITTED: SERVICE_REQUEST,
    REFERRAL_AMENDED: SERVICE_REQUEST,
    REFERRAL_REDIRECTED: SERVICE_REQUEST,
    REFERRAL_MOVED: TASK,
    UPDATE_SUBMITTED: COMMUNICATION,
    UPDATE_WITHDRAWN: COMMUNICATION,
    NOTICE_ISSUED: COMMUNICATION,
    UPDATE_ACKNOWLEDGED: DELIVERY,
    DELIVERY_RECEIVED: DELIVERY,
    DELIVERY_DIED: DEAD_LETTER,
}
"""The topic of each event type."""
