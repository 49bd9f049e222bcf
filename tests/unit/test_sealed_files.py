"""An attachment's file opens as it was written, whole and in order, or not at all."""

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.attachments.sealing import CHUNK, FORMAT, Sealer, opened, prove, sealed_size
from broker.vault import Tampered

KEY, ID = bytes(range(32)), "01932f6e-5b1c-7d2e-9f3a-4b5c6d7e8f90"
STEP = CHUNK + 16


def sealed(*parts: bytes, key: bytes = KEY, identity: str = ID) -> bytes:
    file = io.BytesIO()
    sealer = Sealer(file, key, identity)
    for part in parts:
        sealer.write(part)
    sealer.finish()
    assert sealer.size == len(b"".join(parts))
    assert sealer.digest == hashlib.sha256(b"".join(parts)).hexdigest()
    return file.getvalue()


def read(file: bytes, key: bytes = KEY, identity: str = ID) -> bytes:
    return b"".join(opened(io.BytesIO(file), key, identity))


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
def test_what_was_sealed_opens_and_its_file_is_as_long_as_said(size: int) -> None:
    body = bytes(at % 251 for at in range(size))
    file = sealed(body[: size // 3], body[size // 3 :])
    assert read(file) == body
    assert len(file) == sealed_size(size)
    assert file == sealed(*(body[at : at + 9_999] for at in range(0, size, 9_999)))


@given(st.integers(0, 3 * STEP + len(FORMAT) + 22), st.integers(1, 255))
def test_no_byte_can_be_altered(at: int, by: int) -> None:
    file = bytearray(sealed(bytes(3 * CHUNK + 7)))
    file[at] ^= by
    with pytest.raises(Tampered):
        read(bytes(file))


@pytest.mark.parametrize("end", [0, 5, len(FORMAT), len(FORMAT) + 40, len(FORMAT) + STEP, -1, -8])
def test_no_file_can_end_early(end: int) -> None:
    with pytest.raises(Tampered):
        read(sealed(bytes(2 * CHUNK + 7))[:end])


def test_no_chunk_can_be_moved_left_out_repeated_or_added() -> None:
    file = sealed(b"a" * CHUNK + b"b" * CHUNK + b"c" * CHUNK)
    head, rest = file[: len(FORMAT)], file[len(FORMAT) :]
    a, b, c = rest[:STEP], rest[STEP : 2 * STEP], rest[2 * STEP :]
    for chunks in ([b, a, c], [a, c], [b, c], [a, b], [a, a, b, c], [a, b, c, c], [a, b, c, a], []):
        with pytest.raises(Tampered):
            read(head + b"".join(chunks))
    assert read(head + a + b + c) == read(file)


def test_it_opens_as_no_other_attachment_and_by_no_other_key() -> None:
    file = sealed(b"an image")
    for key, identity in ((bytes(32), ID), (KEY, ID[:-1] + "1")):
        with pytest.raises(Tampered):
            read(file, key, identity)


def test_a_whole_file_of_something_else_is_not_what_was_uploaded() -> None:
    file = sealed(b"an image")
    prove(io.BytesIO(file), KEY, ID, hashlib.sha256(b"an image").hexdigest())
    with pytest.raises(Tampered):
        prove(io.BytesIO(file), KEY, ID, hashlib.sha256(b"another").hexdigest())


def test_the_format_is_pinned() -> None:
    file = sealed(b"x" * (CHUNK + 1))
    assert (
        hashlib.sha256(file).hexdigest()
        == "a1d7a1225763b3985aafc1d1940c0ced2729581be99f798385e08a5fc2c2aa94"
    )
