"""Logs and metrics. JSON lines with a correlation id, and nothing of a patient in either."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# What a log line may hold: ids, codes, counts and times. Anything else is dropped, by name, so
# that no careless line can carry a patient out.
ALLOWED: Final = frozenset(
    {
        "event",
        "level",
        "timestamp",
        "correlation_id",
        "request_id",
        "message_id",
        "event_id",
        "delivery_id",
        "subject",
        "organisation",
        "service",
        "client",
        "door",
        "method",
        "route",
        "status",
        "code",
        "codes",
        "cause",
        "error",
        "attempt",
        "count",
        "lag",
        "milliseconds",
        "position",
        "priority",
        "kind",
        "state",
        "version",
        "address",
        "revisions",
        "path",
        "point",
        "place",
        "item",
        "rule",
    }
)

REGISTRY: Final = CollectorRegistry()
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

INTAKE_SECONDS: Final = Histogram(
    "broker_intake_seconds",
    "From the first byte judged to durable, by door and outcome.",
    ["door", "outcome"],
    registry=REGISTRY,
    buckets=_BUCKETS,
)
ATTEMPTS: Final = Counter(
    "broker_delivery_attempts_total",
    "Attempts at deliveries, by outcome and its code.",
    ["outcome", "code"],
    registry=REGISTRY,
)
QUEUE_AGE: Final = Gauge(
    "broker_queue_age_seconds",
    "Age of the oldest delivery that is due, by priority.",
    ["priority"],
    registry=REGISTRY,
)
DELIVERIES: Final = Gauge(
    "broker_deliveries", "Deliveries that are not done, by state.", ["state"], registry=REGISTRY
)
UNREAD: Final = Gauge(
    "broker_ledger_unread_events",
    "Events that a reader of the ledger has yet to read: dispatch, relay.",
    ["reader"],
    registry=REGISTRY,
)
UNREAD_SECONDS: Final = Gauge(
    "broker_ledger_unread_seconds",
    "How long the oldest of them has been there.",
    ["reader"],
    registry=REGISTRY,
)
OVERDUE: Final = Gauge(
    "broker_overdue_items", "Open items on the work-list, by code.", ["code"], registry=REGISTRY
)
LATE: Final = Gauge(
    "broker_overdue_deadlines",
    "Deadlines that passed and are not met, by the sender's pillar, pathway and clock.",
    ["pillar", "pathway", "clock"],
    registry=REGISTRY,
)
PAUSED: Final = Gauge(
    "broker_paused_deliveries",
    "Deliveries that wait at a destination that is paused, by priority.",
    ["priority"],
    registry=REGISTRY,
)
REQUESTS: Final = Counter(
    "broker_requests_total",
    "Requests answered, by route template and status.",
    ["method", "route", "status"],
    registry=REGISTRY,
)


def metrics() -> bytes:
    """Return the metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


def set_up_logging(level: str = "info") -> None:
    """Log JSON lines to standard error, with only what is allowed in them."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_allowed,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            getattr(logging, level.upper(), logging.INFO)
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _only_allowed(
    _logger: Any, _method: str, line: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name in set(line) - ALLOWED:
        del line[name]
    return line


def what_and_where(error: BaseException) -> dict[str, str]:
    """Return an error's type and the line that raised it: all of it that a log may hold.

    Its text was put together from values, and these may be a patient's.
    """
    said = {"error": type(error).__name__}
    for frame in traceback.extract_tb(error.__traceback__)[-1:]:
        said["point"] = f"{Path(frame.filename).name}:{frame.lineno}"
    return said
