"""Marks by which a judge knows messages and patients apart, though it never opens what is sealed.

A nonce stands in a free text of each message: whoever holds it was given that very text. A digest
stands for a patient: who reads ledgers can compare patients and learns nothing about them.
"""

import hashlib
import re
from typing import Final
from uuid import uuid4

_NONCE: Final = re.compile(rb"\bnonce-[0-9a-f]{32}\b")


def nonce() -> str:
    """Return a nonce that no other message has."""
    return f"nonce-{uuid4().hex}"


def nonces(body: bytes) -> list[str]:
    """Return every nonce that stands anywhere in a body."""
    return sorted({found.decode() for found in _NONCE.findall(body)})


def patient(nhs_number: str, birth_date: str, family: str) -> str:
    """Return the digest of who a patient is, the same for sender and receiver."""
    said = "|".join((nhs_number, birth_date, family.strip().casefold()))
    return hashlib.sha256(said.encode()).hexdigest()
