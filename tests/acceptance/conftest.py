"""One running broker for each module of acceptance tests: every test uses patients of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests import composed
from tests.acceptance.place import Caller, Place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A running broker, with the example directory and every organisation of it as a caller.

    All that it composed is FHIR as our profiles say.
    """
    made = Place(tmp_path_factory.mktemp("place"))
    await made.start()
    yield made
    await made.stop()
    assert composed.faults_in(made.folder) == []


@pytest.fixture
def pharmacy(place: Place) -> Caller:
    """Riverside Pharmacy, which sends consultations."""
    return place.of("FPH01")


@pytest.fixture
def optometrist(place: Place) -> Caller:
    """Clearview Opticians, which sends referrals."""
    return place.of("TPX01")


@pytest.fixture
def practice(place: Place) -> Caller:
    """Riverside Medical Practice, which collects from its inbox."""
    return place.of("G99001")


@pytest.fixture
def hospital(place: Place) -> Caller:
    """Northfield Hospital: single point of access, eye casualty and macular service."""
    return place.of("RXX01")
