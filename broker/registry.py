"""The registry: finds adapters, consumers and commands by entry point, and refuses bad wiring.

The broker knows no pillar by name. A wiring mistake stops start-up with a sentence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from broker.errors import BrokerError
from broker.events import ALL_TYPES
from broker.ports import Adapter, Consumer

ADAPTERS: Final = "referral_broker.adapters"
CONSUMERS: Final = "referral_broker.consumers"
COMMANDS: Final = "referral_broker.commands"
ADAPTER_HAS: Final = (
    "name",
    "door",
    "accepts",
    "examples",
    "needs",
    "translate",
    "withheld",
    "danger",
    "sought",
)
CONSUMER_HAS: Final = (
    "name",
    "types",
    "destinations",
    "compose",
    "handle",
)


class BadWiring(BrokerError):
    """Something that is plugged in does not fit. The message says what and how to mend it."""


@dataclass(frozen=True, slots=True)
class Registry:
    """What is plugged in, by name."""

    adapters: Mapping[str, Adapter]
    consumers: Mapping[str, Consumer]


def load() -> Registry:
    """Load and check everything that is plugged in. Raises BadWiring."""
    adapters: dict[str, Adapter] = {}
    for point in _points(ADAPTERS):
        adapter = _load(point)
        _demand(point, adapter, ADAPTER_HAS)
        if adapter.name != point.name:
            raise BadWiring(
                f"The adapter at {point.value} calls itself {adapter.name!r} but is registered as "
                f"{point.name!r}: give both one name in pyproject.toml."
            )
        adapters[adapter.name] = adapter
    consumers: dict[str, Consumer] = {}
    for point in _points(CONSUMERS):
        consumer = _load(point)
        _demand(point, consumer, CONSUMER_HAS)
        unknown = consumer.types - ALL_TYPES
        if unknown:
            raise BadWiring(
                f"The consumer {consumer.name!r} asks for event types that do not exist: "
                f"{', '.join(sorted(unknown))}. They are listed in broker/events.py."
            )
        consumers[consumer.name] = consumer
    if not adapters or not consumers:
        raise BadWiring(
            "No adapters or no consumers are installed: install the package itself "
            "(pip install -e . in a clone)."
        )
    return Registry(adapters, consumers)


def doors() -> list[str]:
    """Return the names of the pillars' doors, without loading what stands behind them."""
    return [point.name for point in _points(ADAPTERS)]


def commands() -> dict[str, Callable[[], Any]]:
    """Return what is plugged in beside our own commands: by name, how to load it."""
    return {point.name: partial(_load, point) for point in _points(COMMANDS)}


def _points(group: str) -> list[EntryPoint]:
    found = sorted(entry_points(group=group), key=lambda point: point.name)
    names = [point.name for point in found]
    for name in names:
        if len({p.value for p in found if p.name == name}) > 1:
            raise BadWiring(f"Two things are registered as {name!r} in {group}: remove one.")
    return list({point.name: point for point in found}.values())


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise BadWiring(
            f"{point.group} names {point.value}, which cannot be loaded: {error}. Mend the entry "
            "in pyproject.toml or remove it."
        ) from error


def _demand(point: EntryPoint, thing: Any, names: tuple[str, ...]) -> None:
    missing = [name for name in names if not hasattr(thing, name)]
    if missing:
        raise BadWiring(
            f"{point.value} is registered in {point.group} but lacks {', '.join(missing)}; "
            "broker/ports.py says what it needs."
        )
