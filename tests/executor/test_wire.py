from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dayfly.executor import wire
from dayfly.executor.wire import Frame, Garbage, Reader, encode

heads = st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.integers()))
messages = st.lists(st.tuples(st.integers(0, 255), heads, st.binary(max_size=200)), max_size=5)


def read_all(reader: Reader) -> list[Frame]:
    found = []
    while (frame := reader.next()) is not None:
        found.append(frame)
    return found


@settings(deadline=None, database=None)
@given(messages, st.data())
def test_frames_are_the_same_however_they_are_cut(
    sent: list[tuple[int, dict[str, object], bytes]], data: st.DataObject
) -> None:
    stream = b"".join(encode(*message) for message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader, got = Reader(1000), []

    for start, end in pairwise([0, *cuts, len(stream)]):
        reader.feed(stream[start:end])
        got += read_all(reader)

    assert got == [Frame(kind, head, body) for kind, head, body in sent]
    assert reader.is_empty


@settings(deadline=None, database=None)
@given(st.lists(st.binary(max_size=40), max_size=10), st.booleans())
def test_arbitrary_bytes_raise_garbage_or_nothing(pieces: list[bytes], marked: bool) -> None:
    reader = Reader(1000)
    try:
        for piece in [b"dfly" if marked else b"", *pieces]:
            reader.feed(piece)
            for frame in read_all(reader):
                assert isinstance(frame.head, dict)
    except Garbage:
        pass


@settings(deadline=None, database=None)
@given(st.binary(max_size=60), st.integers(0, 3))
def test_arbitrary_heads_raise_garbage_or_are_objects(text: bytes, kind: int) -> None:
    reader = Reader(0)
    reader.feed(wire._PREFIX.pack(b"dfly", kind, len(text), 0) + text)
    try:
        frame = reader.next()
    except Garbage:
        return
    assert frame is not None
    assert isinstance(frame.head, dict)


@pytest.mark.parametrize("first", [b"x", b"dflx", b"df\0", b"hello, this is no frame"])
def test_wrong_beginning_is_garbage_at_once(first: bytes) -> None:
    reader = Reader(1000)
    reader.feed(first)

    with pytest.raises(Garbage, match="not a frame"):
        reader.next()


def test_half_a_frame_is_waited_for() -> None:
    reader = Reader(1000)
    reader.feed(encode(wire.REPORT, {"id": "a"}, b"body")[:-1])

    assert reader.next() is None
    assert not reader.is_empty


@pytest.mark.parametrize(
    ("head_bytes", "body_bytes"), [(wire.MAX_HEAD_BYTES + 1, 0), (0, 1001), (2**32 - 1, 2**32 - 1)]
)
def test_announced_length_beyond_the_limit_is_garbage_before_it_comes(
    head_bytes: int, body_bytes: int
) -> None:
    reader = Reader(1000)
    reader.feed(wire._PREFIX.pack(b"dfly", wire.REPORT, head_bytes, body_bytes))

    with pytest.raises(Garbage, match="more than is allowed"):
        reader.next()


def test_body_at_the_limit_is_allowed() -> None:
    reader = Reader(1000)
    reader.feed(encode(wire.REPORT, {}, bytes(1000)))

    assert reader.next() == Frame(wire.REPORT, {}, bytes(1000))


@pytest.mark.parametrize("text", [b"[" * 100_000, b"1" * 5_000, b"\xff\xfe", b"[]", b'"text"'])
def test_head_that_is_no_object_is_garbage(text: bytes) -> None:
    reader = Reader(0)
    reader.feed(wire._PREFIX.pack(b"dfly", 1, len(text), 0) + text)

    with pytest.raises(Garbage, match="its head is not"):
        reader.next()


def test_lone_surrogates_cross_as_they_are() -> None:
    reader = Reader(0)
    reader.feed(encode(wire.CALL, {"title": "a\ud800b"}))

    assert reader.next() == Frame(wire.CALL, {"title": "a\ud800b"}, b"")
