"""FHIRPath by fhirpathpy: complete and slow. For what closures over raw JSON cannot say."""

from typing import Any, Final

import fhirpathpy
from fhirpathpy.models import models

from fhir_profiles.compiler.operations import Env, Items, Truth

R4: Final = models["r4"]


def truth(expression: str) -> Truth:
    """Compile an expression that says yes or no. Raises what the library raises on bad FHIRPath."""
    compiled = fhirpathpy.compile(expression, R4)

    def holds(items: Items, env: Env) -> bool | None:
        variables: dict[str, Any] = {"resource": env.resource, "rootResource": env.root}
        found = compiled(items[0], variables)
        if not found:
            return None
        return found[0] if isinstance(found[0], bool) else True

    return holds
