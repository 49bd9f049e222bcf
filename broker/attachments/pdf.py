"""Whether a PDF is only to be read: no script, no embedded file, nothing that starts anything.

Refused is also what cannot be looked into for certain: encrypted files, object streams compressed
otherwise than by Flate, objects where a reader might find them and this does not. It leans on no
cross-reference table, for readers disagree on damaged ones: every byte of the file is accounted for
as a token or as a stream's data. ISO 32000-1, 7.2 to 7.5 and 12.6.
"""

import re
import zlib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Final

SCRIPT: Final = "script-inside"
FILE: Final = "file-inside"
STARTS: Final = "starts-something"
OBSCURE: Final = "not-readable"
_WHY: Final = {
    SCRIPT: "This PDF holds a script, or a form that may.",
    FILE: "This PDF holds another file.",
    STARTS: "This PDF starts a program, plays media or sends data.",
    OBSCURE: "This PDF cannot be looked into: {}.",
}
# By what name a PDF has such a thing, whatever stands around it. Those of the second list are too
# short to be looked for in compressed data, where chance makes them.
_FORBIDDEN: Final[Mapping[bytes, str]] = {
    b"JavaScript": SCRIPT,
    b"Rendition": SCRIPT,
    b"RichMedia": SCRIPT,
    b"RichMediaContent": SCRIPT,
    b"XFA": SCRIPT,
    b"3DD": SCRIPT,
    b"OnInstantiate": SCRIPT,
    b"EmbeddedFile": FILE,
    b"EmbeddedFiles": FILE,
    b"FileAttachment": FILE,
    b"Collection": FILE,
    b"GoToE": FILE,
    b"Launch": STARTS,
    b"ImportData": STARTS,
    b"SubmitForm": STARTS,
    b"Movie": STARTS,
    b"Sound": STARTS,
}
_SHORT: Final[Mapping[bytes, str]] = {b"JS": SCRIPT, b"EF": FILE}
_ALL: Final = {**_FORBIDDEN, **_SHORT}
# What may be unpacked of one file's object streams, in all: real ones hold a few hundred kilobytes.
_UNPACKED: Final = 64 * 1024 * 1024
_TOKENS: Final = 2_000_000
_ESCAPED: Final = 100_000
_DEEPEST: Final = 200

_ENDS: Final = rb"\x00\t\n\x0c\r ()<>\[\]{}/%"
_HEX: Final = re.compile(rb"#([0-9A-Fa-f]{2})")
# An object begins with this, whatever its number is written like.
_OBJECT: Final = re.compile(rb"(?<=[\x00\t\n\x0c\r 0-9])obj(?=[\x00\t\n\x0c\r <%\[])")
_STREAM: Final = re.compile(rb"(?<!end)stream(?=[\r\n])")
_END: Final = re.compile(rb"[\x00\t\n\x0c\r ]{0,4}endstream")
_TOKEN: Final = re.compile(
    rb"(?P<gap>(?:[\x00\t\n\x0c\r ]+|%[^\r\n]*)+)"
    rb"|(?P<open><<)|(?P<close>>>)|(?P<array>\[)|(?P<end>\])"
    rb"|(?P<hex><[\x00\t\n\x0c\r 0-9A-Fa-f]*>)|(?P<string>\()|(?P<brace>[{}])"
    rb"|(?P<name>/[^\x00\t\n\x0c\r ()<>\[\]{}/%]*)"
    rb"|(?P<word>[^\x00\t\n\x0c\r ()<>\[\]{}/%]+)"
    rb"|(?P<stray>.)",
    re.DOTALL,
)
_PAREN: Final = re.compile(rb"\\.|[()]", re.DOTALL)


class _Refused(Exception):
    """Why a PDF is not taken: a code, and words for it."""

    def __init__(self, code: str, why: str = "") -> None:
        super().__init__(code)
        self.code, self.why = code, why


def refusal(body: bytes) -> tuple[str, str] | None:
    """Return (code, sentence) where a PDF is not taken, else None. Never raises."""
    try:
        _look(body)
    except _Refused as refused:
        return refused.code, _WHY[refused.code].format(refused.why)
    return None


def _look(body: bytes) -> None:
    _refuse_names(body, _FORBIDDEN)
    if any(_found(body, {b"Encrypt"})):
        raise _Refused(OBSCURE, "it is encrypted")
    reading = _Reading(body)
    reading.read()
    outside = 0
    for start, end in [*reading.data, (len(body), len(body))]:
        _refuse_names(body[outside:start], _ALL)
        inside = body[start:end]
        if _OBJECT.search(inside) or any(_found(inside, {b"ObjStm", b"First"})):
            raise _Refused(OBSCURE, "a stream of it looks like an object")
        outside = end
    if [one.end() for one in reading.outside(_OBJECT)] != reading.objects:
        raise _Refused(OBSCURE, "an object of it stands in a text or a comment")
    if [one.start() for one in reading.outside(_STREAM)] != reading.streams:
        raise _Refused(OBSCURE, "a stream of it belongs to no object")


def _plain(name: bytes) -> bytes:
    """Return a name as a reader takes it: without its stroke, escapes (#4A) as what they mean."""
    if b"#" not in name:
        return name[1:]
    return _HEX.sub(lambda found: bytes([int(found[1], 16)]), name[1:])


@cache
def _pattern(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Return what finds these names, and every name with an escape, which may be one of them."""
    plain = b"|".join(sorted(re.escape(name) for name in names))
    return re.compile(
        rb"/(?:" + plain + rb"|[^#" + _ENDS + rb"]*#[^" + _ENDS + rb"]*)(?![^" + _ENDS + rb"])"
    )


def _found(part: bytes, names: Collection[bytes]) -> Iterator[bytes]:
    """Yield which of these names stand in a part, escaped or not."""
    escaped = 0
    for found in _pattern(frozenset(names)).finditer(part):
        escaped += b"#" in found.group()
        if escaped > _ESCAPED:
            raise _Refused(OBSCURE, "too many of its names are escaped")
        name = _plain(found.group())
        if name in names:
            yield name


def _refuse_names(part: bytes, forbidden: Mapping[bytes, str]) -> None:
    for name in _found(part, forbidden):
        raise _Refused(forbidden[name])


class _Reading:
    """One file read from its beginning to its end, token by token, as a PDF is written."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._unpacked = _UNPACKED
        self.objects: list[int] = []
        self.streams: list[int] = []
        self.data: list[tuple[int, int]] = []
        """Where the data of streams begins and ends."""

    def outside(self, pattern: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
        """Yield what is found outside the data of streams."""
        at = 0
        for start, end in [*self.data, (len(self._body), len(self._body))]:
            yield from pattern.finditer(self._body, at, start)
            at = end

    def read(self) -> None:
        at, stack = 0, list[list[bytes]]()
        closed: list[bytes] | None = None  # the dictionary that has just ended, at the top
        for _ in range(_TOKENS):
            token = _TOKEN.match(self._body, at)
            if token is None:
                return
            at, kind, text = token.end(), token.lastgroup, token.group()
            if kind == "gap":
                continue
            if kind == "word" and text == b"obj":
                self.objects.append(at)
                stack, closed = [], None
                continue
            if kind == "word" and text == b"stream" and closed is not None:
                self.streams.append(token.start())
                at = self._skip(closed, at)
                stack, closed = [], None
                continue
            if closed is not None:
                if _is_objects(closed) and text != b"endobj" and _key(closed, b"Filter"):
                    raise _Refused(OBSCURE, "what follows an object is not as PDF has it")
                closed = None
            if kind == "string":
                at = self._string(at)
                self._put(stack, b"()")
            elif kind in {"open", "array"}:
                if len(stack) >= _DEEPEST:
                    raise _Refused(OBSCURE, "it is nested too deep")
                stack.append([b"<<" if kind == "open" else b"["])
            elif kind in {"close", "end"}:
                closed = self._close(stack, kind)
            else:
                self._put(stack, b"/" + _plain(text) if kind == "name" else text)
        raise _Refused(OBSCURE, "it has too many parts")

    def _string(self, at: int) -> int:
        """Return where a text ends that began before this place."""
        depth = 1
        for found in _PAREN.finditer(self._body, at):
            if found.group() in {b"(", b")"}:
                depth += 1 if found.group() == b"(" else -1
            if depth == 0:
                return found.end()
        return len(self._body)

    @staticmethod
    def _put(stack: list[list[bytes]], text: bytes) -> None:
        if stack:
            stack[-1].append(text)

    def _close(self, stack: list[list[bytes]], kind: str | None) -> list[bytes] | None:
        """End a dictionary or list; return a dictionary's members if it stands by itself."""
        opened = stack.pop() if stack else [b""]
        if opened[0] != (b"<<" if kind == "close" else b"["):
            raise _Refused(OBSCURE, "its parts do not fit into each other")
        if stack or kind != "close":
            # A list of one or two keeps them, for who asks which filters there are.
            few = kind == "end" and len(opened) <= 3
            self._put(stack, b"[" + b" ".join(opened[1:])[:99] + b"]" if few else b"[...]")
            return None
        return opened[1:]

    def _skip(self, members: list[bytes], at: int) -> int:
        """Return where a stream's data ends, having looked into it if it may hold objects."""
        start = at + (2 if self._body.startswith(b"\r\n", at) else 1)
        if self._body[at : at + 1] == b"\r" and start == at + 1:
            raise _Refused(OBSCURE, "a stream of it begins otherwise than PDF has it")
        length = _key(members, b"Length")
        named = int(length[0]) if length and length[0].isdigit() and len(length[0]) < 10 else 0
        # A length may be wrong or stand elsewhere (5 0 R): it counts where it leads to the end.
        counts = _END.match(self._body, start + named)
        end = self._body.find(b"endstream", start + named if counts else start)
        if end < 0:
            raise _Refused(OBSCURE, "a stream of it does not end")
        self.data.append((start, end))
        if _is_objects(members):
            self._look_into(members, start, end)
        return end

    def _look_into(self, members: list[bytes], start: int, end: int) -> None:
        """Refuse an object stream by what it holds, or because that cannot be seen."""
        filters = _key(members, b"Filter")
        if not filters:
            _refuse_names(self._body[start:end], _ALL)
            return
        once = len(filters) == 1 and filters[0] in {b"/FlateDecode", b"[/FlateDecode]"}
        others = (b"DecodeParms", b"DP", b"F", b"FFilter", b"Fl")
        if not once or any(_key(members, one) for one in others):
            raise _Refused(OBSCURE, "objects of it are compressed otherwise than by Flate")
        reader = zlib.decompressobj()
        try:
            unpacked = reader.decompress(self._body[start:end], self._unpacked)
        except zlib.error:
            raise _Refused(OBSCURE, "objects of it cannot be unpacked") from None
        self._unpacked -= len(unpacked)
        if not reader.eof or self._unpacked <= 0:
            raise _Refused(OBSCURE, "objects of it cannot be unpacked whole")
        _refuse_names(unpacked, _ALL)


def _key(members: list[bytes], name: bytes) -> list[bytes]:
    """Return every value that a dictionary's members give to a key, as they are written."""
    wanted = b"/" + name
    return [members[at + 1] for at in range(len(members) - 1) if members[at] == wanted]


def _is_objects(members: list[bytes]) -> bool:
    """Whether a reader may find objects in the stream of this dictionary; /Type may be missing."""
    return b"/ObjStm" in members or b"/First" in members or b"/N" in members
