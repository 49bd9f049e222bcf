"""Attachments in FHIR R4: a DocumentReference says what is to be fetched, where, and its SHA-256.

FHIR's own `Attachment.hash` is SHA-1 and is never written; the digest is an extension of ours.
"""

from datetime import datetime

from fhir.resources.R4B.attachment import Attachment
from fhir.resources.R4B.documentreference import DocumentReference

from fhir_profiles import blocks, codes, make
from fhir_profiles.resources import extension, meta, moment, reference


def names_ours(content: bytes) -> bool:
    """Whether a content may name attachments that were uploaded here; one that does not says no."""
    return codes.EXT_SHA256.encode() in content


def document(
    said: blocks.Attachment,
    *,
    content_type: str,
    size: int,
    url: str,
    patient: str,
    author: str,
    written: datetime,
) -> DocumentReference:
    """Return what was said of an attachment with what is known of it: type, size, where it is."""
    return make.DocumentReference(
        meta=meta("UKCore-DocumentReference"),
        status="current",
        subject=reference(patient),
        date=written,
        author=[reference(author)],
        description=said.shows,
        content=[
            make.DocumentReferenceContent(
                attachment=_attachment(said, content_type=content_type, size=size, url=url)
            )
        ],
    )


def _attachment(said: blocks.Attachment, *, content_type: str, size: int, url: str) -> Attachment:
    return make.Attachment(
        extension=[extension(codes.EXT_SHA256, valueString=said.sha256)],
        contentType=content_type,
        url=url,
        size=size,
        title=said.title,
        creation=moment(said.dated) if said.dated is not None else None,
    )
