"""Makers of typed resources: as their models would be, without the models' own checks."""

from typing import Any

import pytest

from fhir_profiles import make


def model(maker: Any) -> Any:
    return maker.__wrapped__


def test_what_is_made_equals_what_the_constructor_makes() -> None:
    period = make.Period(start=None)
    assert period == model(make.Period)()
    assert period.start is None
    quantity = make.Quantity(unit="mmHg")
    assert quantity == model(make.Quantity)(unit="mmHg")
    assert quantity.model_fields_set == {"unit"}


def test_a_member_is_known_by_its_alias_too() -> None:
    in_class: dict[str, Any] = {"class": make.Coding(code="AMB")}
    encounter = make.Encounter(**in_class, status="finished")
    assert encounter.class_fhir is in_class["class"]


def test_a_member_that_the_model_does_not_have_is_refused() -> None:
    wrong: dict[str, Any] = {"referense": "urn:uuid:1"}
    with pytest.raises(TypeError, match="Reference has no member 'referense'"):
        make.Reference(**wrong)
