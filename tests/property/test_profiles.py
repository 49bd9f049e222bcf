"""Checks of resources that nobody would write: every shape is told, and none breaks the check."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_profiles.profiles import ours
from tests import made

ODD: list[Any] = [
    *(None, True, 0, -1, 1.5, 10**30, "", "x", " urn:uuid:x", "2020-02-30", "#", "[x"),
    *([], [None], ["x"], [[]], {}, {"a": 1}, {"id": "x"}, {"url": 5}, {"extension": [1, None, {}]}),
    *({"reference": "#x"}, {"reference": 3}, {"coding": "x"}, {"coding": [None, {"code": {}}]}),
    [{"system": [], "code": {}}],
]
BUNDLES = st.sampled_from(sorted(made.contents().items())).map(lambda one: one[1])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything that can be replaced: (container, key or index)."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, held in list(items):
        yield value, key
        if isinstance(held, dict | list):
            yield from places(held)


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    bundle: dict[str, Any] = json.loads(draw(BUNDLES))
    for _ in range(draw(st.integers(1, 4))):
        every = list(places(bundle))
        if not every:
            break
        holder, key = every[draw(st.integers(0, len(every) - 1))]
        odd = copy.deepcopy(draw(st.sampled_from(ODD)))
        if isinstance(holder, dict) and draw(st.booleans()):
            holder[f"_{key}"] = odd
        else:
            holder[key] = odd
    return bundle


@settings(max_examples=300, deadline=None)
@given(spoiled())
def test_no_shape_of_a_value_breaks_the_check(bundle: dict[str, Any]) -> None:
    for one in ours().check(json.dumps(bundle).encode()):
        assert one.text
