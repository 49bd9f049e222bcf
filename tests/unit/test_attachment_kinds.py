"""What an attachment is by its content, and which PDF and DICOM files are not taken."""

import zlib

import pytest

from broker.attachments import pdf
from broker.attachments.kinds import HEAD, Kind, kind_of, problems

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01"
DICOM = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PNG, Kind.PNG),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", Kind.JPEG),
        (b"\xff\xd8\xff\xe1\x00\x10Exif\x00", Kind.JPEG),
        (b"II*\x00\x08\x00\x00\x00", Kind.TIFF),
        (b"MM\x00*\x00\x00\x00\x08", Kind.TIFF),
        (DICOM, Kind.DICOM),
        (b"II*\x00" + bytes(124) + b"DICM", Kind.DICOM),
        (b"%PDF-1.7\n", Kind.PDF),
    ],
)
def test_what_it_is_is_told_by_its_beginning(head: bytes, kind: Kind) -> None:
    assert kind_of(head) is kind
    assert kind.suffix in {"png", "jpg", "tif", "dcm", "pdf"}


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x89PNG",
        b"\x89PNG\r\n\x1a\n<html>",
        b"GIF89a",
        b"<html>",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        b"PK\x03\x04",
        b"MZ\x90\x00",
        b" %PDF-1.7",
        PNG + b"....%PDF-1.4",
        b"\xff\xd8\xff\xe0" + bytes(900) + b"%PDF-1.4",
        b"MZ\x90\x00" + bytes(124) + b"DICM",
        b"<script>" + bytes(120) + b"DICM",
        b"II+\x00\x08\x00\x00\x00",
    ],
)
def test_what_is_none_of_them_or_two_in_one_is_not_taken(head: bytes) -> None:
    assert kind_of(head[:HEAD]) is None


@pytest.mark.parametrize(
    ("uid", "codes"),
    [
        (b"1.2.840.10008.5.1.4.1.1.77.1.5.4", []),  # ophthalmic tomography
        (b"1.2.840.10008.5.1.4.1.1.104.1", ["document-inside"]),
        (b"1.2.840.10008.1.2.1.99", ["not-readable"]),
    ],
)
def test_a_dicom_file_holds_an_image_and_no_document(uid: bytes, codes: list[str]) -> None:
    assert [one.code for one in problems(Kind.DICOM, DICOM + bytes(70_000) + uid)] == codes


# -- PDF -----------------------------------------------------------------------------------------

HEADER = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"
PAGES = b"""1 0 obj
<</Type/Catalog/Pages 2 0 R/Outlines 4 0 R>>
endobj
2 0 obj
<</Type/Pages/Kids[3 0 R]/Count 1>>
endobj
3 0 obj
<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 5 0 R>>
endobj
4 0 obj
<</Type/Outlines/First 6 0 R/Last 6 0 R/Count 1>>
endobj
"""
END = b"xref\n0 1\n0000000000 65535 f \ntrailer\n<</Size 9/Root 1 0 R>>\nstartxref\n9\n%%EOF\n"


def stream(number: int, words: bytes, data: bytes) -> bytes:
    length = b"/Length %d" % len(data) if b"/Length" not in words else b""
    return b"%d 0 obj\n<<%s%s>>\nstream\n%s\nendstream\nendobj\n" % (number, words, length, data)


def objects(held: bytes, words: bytes = b"/Type/ObjStm/N 1/First 4/Filter/FlateDecode") -> bytes:
    return stream(7, words, zlib.compress(b"8 0 " + held))


def written(*more: bytes, end: bytes = END) -> bytes:
    text = stream(5, b"/Filter/FlateDecode", zlib.compress(b"BT (a page) Tj ET"))
    return HEADER + PAGES + text + b"".join(more) + end


def code(*more: bytes, end: bytes = END) -> str | None:
    found = pdf.refusal(written(*more, end=end))
    return found[0] if found is not None else None


@pytest.mark.parametrize(
    "more",
    [
        b"",
        objects(b"<</Type/Annot/Subtype/Link/A<</S/URI/URI(https://nhs.uk)>>>>"),
        objects(b"<</A 1>>", b"/Type/ObjStm/N 1/First 4/Filter[/FlateDecode]"),
        stream(8, b"/N 3/Filter/FlateDecode", zlib.compress(b"an ICC profile")),
        stream(8, b"/Subtype/Image/Filter/DCTDecode", b"\xff\xd8\xff" + bytes(range(256)) * 40),
        stream(8, b"/Length 99 0 R", b"text") + b"99 0 obj\n4\nendobj\n",
        stream(8, b"/Length 100000", b"a wrong length"),
        b"8 0 obj\n<</OpenAction[3 0 R/Fit]/T(a \\) nested (text))/H<48656C>>>\nendobj\n",
        b"8 0 obj\n(a text of streams and objects, endobj and /Names)\nendobj\n",
    ],
)
def test_a_pdf_to_be_read_is_taken(more: bytes) -> None:
    assert code(more) is None


SCRIPT = b"<</S/JavaScript/JS(app.alert\\(1\\))>>"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (b"8 0 obj\n" + SCRIPT + b"\nendobj\n", pdf.SCRIPT),
        (b"8 0 obj\n<</S/Java#53cript/J#53(x)>>\nendobj\n", pdf.SCRIPT),
        (b"8 0 obj\n<</S/Rendition/JS(x)>>\nendobj\n", pdf.SCRIPT),
        (b"8 0 obj\n<</AA<</O<</JS 9 0 R>>>>>>\nendobj\n", pdf.SCRIPT),
        (b"8 0 obj\n<</AcroForm<</XFA 9 0 R>>>>\nendobj\n", pdf.SCRIPT),
        (b"8 0 obj\n<</Names<</EmbeddedFiles 9 0 R>>>>\nendobj\n", pdf.FILE),
        (b"8 0 obj\n<</F(a.exe)/EF<</F 9 0 R>>>>\nendobj\n", pdf.FILE),
        (b"8 0 obj\n<</Subtype/File#41ttachment/FS 9 0 R>>\nendobj\n", pdf.FILE),
        (b"8 0 obj\n<</S/Launch/F(cmd.exe)>>\nendobj\n", pdf.STARTS),
        (b"8 0 obj\n<</S/SubmitForm/F(http://x)>>\nendobj\n", pdf.STARTS),
        (objects(SCRIPT), pdf.SCRIPT),
        (objects(b"<</EF<</F 9 0 R>>>>"), pdf.FILE),
        # /Type is missing, or hides what it is: a reader goes by the cross-reference table.
        (objects(b"<</JS(x)>>", b"/N 1/First 4/Filter/FlateDecode"), pdf.SCRIPT),
        (objects(b"<</JS(x)>>", b"/Type/Obj#53tm/N 1/F#69rst 4/Filter/FlateDecode"), pdf.SCRIPT),
    ],
)
def test_a_pdf_with_a_script_or_file_is_refused_however_it_is_written(
    more: bytes, why: str
) -> None:
    assert code(more) == why


@pytest.mark.parametrize(
    "more",
    [
        # Compressed otherwise, twice, behind a predictor, in another file, or not whole.
        objects(SCRIPT, b"/Type/ObjStm/N 1/First 4/Filter/LZWDecode"),
        objects(SCRIPT, b"/Type/ObjStm/N 1/First 4/Filter[/FlateDecode/FlateDecode]"),
        objects(SCRIPT, b"/Type/ObjStm/N 1/First 4/Filter 9 0 R"),
        objects(SCRIPT, b"/Type/ObjStm/N 1/First 4/Filter/FlateDecode/Filter/Crypt"),
        objects(
            b"<<>>", b"/Type/ObjStm/N 1/First 4/Filter/FlateDecode/DecodeParms<</Predictor 12>>"
        ),
        objects(b"<<>>", b"/Type/ObjStm/N 1/First 4/Filter/FlateDecode/F(other.bin)"),
        stream(7, b"/Type/ObjStm/N 1/First 4/Filter/FlateDecode", zlib.compress(bytes(99))[:-4]),
        stream(7, b"/Type/ObjStm/N 1/First 4/Filter/FlateDecode", b"not compressed at all"),
        # An object where no reader of the whole file would look, but a table may lead to.
        stream(8, b"", b"9 0 obj\n<</A 1>>\nendobj"),
        b"% 9 0 obj <</A 1>> endobj\n",
        b"8 0 obj\n( 9 0 obj <</A 1>> endobj )\nendobj\n",
        b"8 0 obj\n<</A( \n" + objects(b"<<>>") + b"\n)>>\nendobj\n",
        stream(8, b"", b"<</Type/ObjStm/N 1/First 4>>"),
        # What begins a text or a list that never ends swallows what follows.
        b"( " + objects(SCRIPT),
        b"8 0 obj\n<</A[>>\nendobj\n",
        b"8 0 obj\n<</A 1>> 5 stream\nx\nendstream\nendobj\n",
        b"8 0 obj\n<</Length 1>>\nstream\rx\nendstream\nendobj\n",
        b"8 0 obj\n<</Length 1>>\nstream\nx\n",
        b"8 0 obj\n" + b"[" * 300 + b"\nendobj\n",
    ],
)
def test_a_pdf_that_cannot_be_looked_into_is_refused(more: bytes) -> None:
    assert code(more) is not None


def test_an_encrypted_pdf_is_refused() -> None:
    assert code(end=END.replace(b"/Size 9", b"/Size 9/Encrypt 8 0 R")) == pdf.OBSCURE
    assert code(end=END.replace(b"/Size 9", b"/Size 9/En#63rypt 8 0 R")) == pdf.OBSCURE


def test_object_streams_are_not_unpacked_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "_UNPACKED", 100_000)
    assert code(objects(b" " * 50_000)) is None
    assert code(objects(b" " * 50_000), objects(b" " * 50_000)) == pdf.OBSCURE


@pytest.mark.parametrize(
    "part", [b"(", b"<", b"<<", b"[", b"%", b"/a", b"1 ", b"1 %", b"\\", b"\n", b"/a#41"]
)
def test_what_says_one_thing_again_and_again_is_judged(part: bytes) -> None:
    # Of a reader that goes back over what it has read, no end of this is seen.
    found = pdf.refusal(HEADER + part * (1_000_000 // len(part)))
    assert found is None or found[0] in pdf._WHY
