"""Where an acceptance spends its time: the real one, in this process, a stopwatch on each step.

One consultation at a time and nothing beside it: so a stage's time is its latency, not its share
of a busy process.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from functools import wraps
from typing import Any, Final
from unittest.mock import patch

from benchmarks.load import MARK, Door
from broker import intake, preparing
from broker.answers import Answers
from broker.events import uuid7
from broker.intake import Posted
from broker.main import Broker, open_broker
from broker.ports import Adapter
from broker.settings import Settings
from broker.telemetry import set_up_logging
from fhir_profiles import structure

WHOLE: Final = "whole"
_OTHER: Final = "everything else"
_WARM_UP: Final = 30
_Times = dict[str, list[float]]


async def measure(settings: Settings, door: Door, samples: int) -> dict[str, float]:
    """Return the median time of each stage in ms, in the order in which they come."""
    set_up_logging("warning")
    times: _Times = defaultdict(list)
    async with open_broker(settings) as broker:
        adapter = next(it for it in broker.adapters.values() if it.door == door.path)
        for number in range(_WARM_UP + samples):
            if number == _WARM_UP:
                times.clear()
            one: dict[str, float] = defaultdict(float)
            with _watching(broker, adapter, one):
                await _accept(broker, adapter, door, one)
            one["compose and seal"] -= one["check"]  # which is a part of it
            one[_OTHER] = one[WHOLE] - sum(took for name, took in one.items() if name != WHOLE)
            for stage, took in one.items():
                times[stage].append(took * 1000)
    order = [*STAGES, _OTHER, WHOLE]
    return {name: round(statistics.median(times[name]), 3) for name in order}


STAGES: Final = (
    "authenticate",
    "key look-up",
    "parse",
    "understand",
    "directory",
    "route",
    "translate",
    "check",
    "compose and seal",
    "answer",
    "store and commit",
)


async def _accept(broker: Broker, adapter: Adapter, door: Door, one: dict[str, float]) -> None:
    key = uuid7()
    body = door.body.replace(MARK, key.encode())
    started = time.perf_counter()
    caller = await broker.authority.authenticate(door.headers["Authorization"])
    one["authenticate"] = time.perf_counter() - started
    await broker.intake.accept(Posted(caller, adapter, key, body))
    one[WHOLE] = time.perf_counter() - started


@contextmanager
def _watching(broker: Broker, adapter: Adapter, one: dict[str, float]) -> Iterator[None]:
    """Put a stopwatch on every step between the door and the answer."""
    steps: list[tuple[Any, str, str]]
    with ExitStack() as stack:
        steps = [
            (intake, "read_object", "parse"),
            (intake, "understand", "understand"),
            (intake, "plan", "route"),
            (type(adapter), "translate", "translate"),
            (structure, "check", "check"),
            (preparing, "compose", "compose and seal"),
            (preparing, "answer", "answer"),
            (Answers, "seal", "answer"),
        ]
        for owner, name, stage in steps:
            timed = _timed(getattr(owner, name), stage, one)
            stack.enter_context(patch.object(owner, name, timed))
        steps = [
            (broker.directory, "current", "directory"),
            (broker.store, "write", "store and commit"),
        ]
        for owner, name, stage in steps:
            awaited = _awaited(getattr(owner, name), stage, one)
            stack.enter_context(patch.object(owner, name, awaited))
        claimed = _entered(Answers.claim, "key look-up", one)
        stack.enter_context(patch.object(Answers, "claim", claimed))
        yield


def _timed(fn: Callable[..., Any], stage: str, one: dict[str, float]) -> Callable[..., Any]:
    @wraps(fn)
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return fn(*arguments, **named)
        finally:
            one[stage] += time.perf_counter() - started

    return timed


def _awaited(fn: Callable[..., Any], stage: str, one: dict[str, float]) -> Callable[..., Any]:
    @wraps(fn)
    async def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return await fn(*arguments, **named)
        finally:
            one[stage] += time.perf_counter() - started

    return timed


def _entered(
    fn: Callable[..., AbstractAsyncContextManager[Any]], stage: str, one: dict[str, float]
) -> Callable[..., AbstractAsyncContextManager[Any]]:
    @asynccontextmanager
    async def timed(*arguments: Any, **named: Any) -> AsyncIterator[Any]:
        started = time.perf_counter()
        async with fn(*arguments, **named) as found:
            one[stage] += time.perf_counter() - started
            yield found

    return timed
