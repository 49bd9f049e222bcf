"""What a sight test found, as FHIR Observations per eye. Numbers keep their digits.

Codes are our own CodeSystem eye-finding: no reference confirms a SNOMED CT code for any of them.
The two eyes are SNOMED CT body structures that NHS examples confirm.
"""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.observation import Observation, ObservationComponent
from fhir.resources.R4B.quantity import Quantity

from adapters.pillars.optometry.sight_test import (
    SIDES,
    EyeFindings,
    Pressure,
    PrismCorrection,
    Refraction,
    Side,
    SightTestReferral,
)
from fhir_profiles import clinical, codes, make, resources

_WORDED: Final = (
    ("visual-acuity", "acuity"),
    ("unaided-vision", "unaided_vision"),
    ("pinhole-acuity", "pinhole"),
    ("near-acuity", "near_acuity"),
    ("optic-disc", "optic_disc"),
    ("visual-field", "visual_field"),
    ("other-finding", "other"),
)
_REFRACTED: Final = (
    ("sphere", "sphere", "[diop]"),
    ("cylinder", "cylinder", "[diop]"),
    ("axis", "axis", "deg"),
    ("addition", "addition", "[diop]"),
)
_ANSWERED: Final = (
    ("dilated-examination", "dilated"),
    ("cycloplegic-refraction", "cycloplegic"),
    ("under-hospital", "under_hospital"),
)
_TOLD: Final = (
    ("field-instrument", "field_instrument"),
    ("symptoms", "symptoms"),
    ("history", "history"),
)
_BASES: Final = ("base_in", "base_out", "base_up", "base_down")

Named = tuple[str, Observation]


def observations(request: SightTestReferral, patient: str, performer: str) -> Iterator[Named]:
    """Yield every finding with a name that is unique in the message, right eye first."""
    made = _Maker(patient, performer, request.date_of_sight_test)
    for side in SIDES:
        yield from _of_eye(made, side, request.findings(side))
    for code, field in _ANSWERED:
        answer = getattr(request, field)
        if answer is not None:
            yield code, made.observation(code, answer)
    for code, field in _TOLD:
        words = getattr(request, field)
        if words is not None:
            yield code, made.observation(code, make.CodeableConcept(text=words))


class _Maker:
    """Makes observations that share patient, performer and time."""

    def __init__(self, patient: str, performer: str, tested: date | datetime) -> None:
        self._patient = patient
        self._performer = performer
        self._tested = tested

    def observation(
        self,
        code: str,
        value: Quantity | CodeableConcept | bool | None,
        side: Side | None = None,
        *,
        taken: date | datetime | None = None,
        method: CodeableConcept | None = None,
        components: tuple[ObservationComponent, ...] = (),
    ) -> Observation:
        """Return one finding, in one eye if it is of an eye."""
        return clinical.observation(
            code=resources.defined("eye-finding", code),
            patient=self._patient,
            performer=self._performer,
            taken=taken or self._tested,
            value=value,
            category="exam",
            site=clinical.EYES[side] if side else None,
            method=method,
            components=components,
        )


def _of_eye(made: _Maker, side: Side, found: EyeFindings) -> Iterator[Named]:
    for code, field in _WORDED:
        words = getattr(found, field)
        if words is not None:
            yield f"{code} {side}", made.observation(code, make.CodeableConcept(text=words), side)
    if found.previous_acuity is not None:
        earlier = made.observation(
            "previous-acuity",
            make.CodeableConcept(text=found.previous_acuity),
            side,
            taken=found.previous_acuity_date,
        )
        if found.previous_acuity_date is None:
            # It was not measured at this sight test; when it was, nobody says.
            earlier = earlier.model_copy(update={"effectiveDateTime": None})
        yield f"previous-acuity {side}", earlier
    if found.refraction is not None:
        parts = tuple(_refraction(found.refraction))
        if parts:
            yield (
                f"refraction {side}",
                made.observation("refraction", None, side, components=parts),
            )
    for at, pressure in enumerate(found.pressures):
        yield f"intraocular-pressure {side} {at}", _pressure(made, side, pressure)
    if found.cup_disc_ratio is not None:
        ratio = make.Quantity(value=found.cup_disc_ratio, system=codes.UCUM, code="1")
        yield f"cup-disc-ratio {side}", made.observation("cup-disc-ratio", ratio, side)


def _pressure(made: _Maker, side: Side, pressure: Pressure) -> Observation:
    repeated = make.ObservationComponent(
        code=resources.defined("eye-finding", "pressure-repeated"),
        valueBoolean=pressure.repeated,
    )
    return made.observation(
        "intraocular-pressure",
        resources.quantity(pressure.value, "mm[Hg]"),
        side,
        taken=pressure.taken_at,
        method=resources.defined("eye-finding", f"tonometer-{pressure.method}")
        if pressure.method
        else None,
        components=(repeated,),
    )


def _refraction(refraction: Refraction) -> Iterator[ObservationComponent]:
    for code, field, unit in _REFRACTED:
        value = getattr(refraction, field)
        if value is not None:
            yield _component(code, resources.quantity(value, unit))
    for distance in ("distance", "near"):
        prism: PrismCorrection | None = getattr(refraction, f"{distance}_prism")
        for base in _BASES if prism is not None else ():
            value = getattr(prism, base)
            if value is not None:
                code = f"{distance}-prism-{base.replace('_', '-')}"
                yield _component(code, _prism_dioptres(value))


def _component(code: str, value: Quantity) -> ObservationComponent:
    return clinical.component(resources.defined("eye-finding", code), value)


def _prism_dioptres(value: Decimal) -> Quantity:
    return make.Quantity(value=value, unit="prism dioptres", system=codes.UCUM, code="[p'diop]")
