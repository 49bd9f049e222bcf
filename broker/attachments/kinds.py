"""What an attachment is, by its content; never by its name or by what its sender calls it.

Signatures: PNG (ISO 15948, 5.2), JPEG (ISO 10918-1, B.1), TIFF 6.0 (section 2), DICOM (PS3.10,
7.1), PDF (ISO 32000-1, 7.5.2). Each is asked for at the very beginning of the file.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from broker.attachments import pdf
from broker.errors import Problem

FIELD: Final = "body"
HEAD: Final = 1_032
"""How much of a file's beginning says what it is."""
_TIFF: Final = (b"II*\x00", b"MM\x00*")
_PREAMBLE: Final = 128
# DICOM PS3.4 B.5 and PS3.5 A.5: documents (PDF, CDA, models) within DICOM, and the one syntax in
# which a data set is compressed as a whole.
_ENCAPSULATED: Final = b"1.2.840.10008.5.1.4.1.1.104."
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"


class Kind(StrEnum):
    """What is taken."""

    PNG = "image/png"
    JPEG = "image/jpeg"
    TIFF = "image/tiff"
    DICOM = "application/dicom"
    PDF = "application/pdf"

    @property
    def suffix(self) -> str:
        """How the name of such a file ends."""
        return {Kind.JPEG: "jpg", Kind.TIFF: "tif", Kind.DICOM: "dcm"}.get(self, self.name.lower())


def kind_of(head: bytes) -> Kind | None:
    """Return what a file is that begins like this; None for what is not taken."""
    if head.startswith(b"%PDF-"):
        return Kind.PDF
    if b"%PDF-" in head:  # a reader that looks for it would take this for a PDF
        return None
    if head[_PREAMBLE:].startswith(b"DICM"):
        preamble = head[:_PREAMBLE]
        is_plain = not any(preamble) or preamble.startswith(_TIFF)
        return Kind.DICOM if is_plain else None  # else it is a program too, or a page
    if head.startswith(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"):
        return Kind.PNG
    if head.startswith(b"\xff\xd8\xff"):
        return Kind.JPEG
    return Kind.TIFF if head.startswith(_TIFF) else None


NOT_TAKEN: Final = Problem(
    FIELD,
    "not-taken",
    "This is none of PNG, JPEG, TIFF, DICOM and PDF, by its content.",
    "Send the file itself as the body, in one of these formats.",
)


def problems(kind: Kind, body: bytes) -> Iterator[Problem]:
    """Yield why a whole file of a kind is not taken. Only PDF and DICOM can hold what harms."""
    if kind is Kind.PDF:
        found = pdf.refusal(body)
        if found is not None:
            code, detail = found
            yield Problem(FIELD, code, detail, "Print it to a new PDF, or send it as an image.")
    elif kind is Kind.DICOM:
        if _ENCAPSULATED in body:
            yield Problem(
                FIELD,
                "document-inside",
                "This DICOM file holds another document.",
                "Send the document by itself.",
            )
        if _DEFLATED in body:
            yield Problem(
                FIELD,
                "not-readable",
                "This DICOM file is compressed as a whole and cannot be looked into.",
                "Save it in another transfer syntax.",
            )
