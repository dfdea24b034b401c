"""Laws of the frame: decoding undoes encoding, and no damage hides a whole frame."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from clewline.serve.log.frame import (
    MAGIC,
    LoggedBatch,
    LoggedRequest,
    decode_frame,
    find_frame,
    frame_ids,
    key_hash,
    scan_frames,
)
from clewline.serve.log.writer import encode_frame
from clewline.store.digest import Digest


class InMemory(bytes):
    """Bytes that frames stand in."""

    def read(self, start: int, end: int) -> bytes:
        return self[start:end]


texts = st.text(max_size=8)
parts = st.builds(
    LoggedRequest,
    format=st.sampled_from(["json", "json-rows"]),
    body=st.one_of(st.binary(max_size=200), st.just(MAGIC * 3)),
    count=st.integers(0, 10_000),
    entities=st.none() | st.lists(texts, max_size=3),
    idempotency_key=st.none() | texts,
)


@st.composite
def frames(draw: st.DrawFn) -> LoggedBatch:
    rows = draw(st.sampled_from([1, 2, 15, 16, 300, 4096]))
    return LoggedBatch(
        ids=draw(st.binary(min_size=16, max_size=16)) * rows,
        endpoint=draw(texts),
        revision=draw(st.integers(1, 2**40)),
        model=draw(texts),
        package=Digest("ab" * 32),
        time=draw(st.floats(0, 4e9)),
        requests=draw(st.lists(parts, max_size=3)),
        answers=[draw(st.binary(max_size=50))] * rows,
        path=draw(st.lists(st.tuples(texts, st.floats(0, 1e9)), max_size=2)),
    )


@given(frames())
def test_decoding_returns_what_was_encoded(frame: LoggedBatch) -> None:
    data = InMemory(encode_frame(frame))
    slot = find_frame(data, 0)
    assert slot is not None
    assert (slot.offset, slot.end, slot.rows) == (0, len(data), len(frame.ids) // 16)
    assert slot.keyed == sum(part.idempotency_key is not None for part in frame.requests)
    assert decode_frame(data, slot) == frame
    assert frame_ids(data, slot) == frame.ids


@given(
    st.lists(frames(), min_size=1, max_size=4), st.lists(st.binary(max_size=30) | st.just(MAGIC))
)
def test_garbage_between_frames_hides_none_of_them(
    some: list[LoggedBatch], rubbish: list[bytes]
) -> None:
    data = b""
    for index, frame in enumerate(some):
        data += (rubbish[index] if index < len(rubbish) else b"") + bytes(encode_frame(frame))
    source = InMemory(data)
    assert [decode_frame(source, slot) for slot in scan_frames(source)] == some


@given(frames(), st.data())
def test_any_flipped_bit_is_noticed(frame: LoggedBatch, data: st.DataObject) -> None:
    packed = encode_frame(frame)
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= 1 << data.draw(st.integers(0, 7))
    assert find_frame(InMemory(packed), 0) is None


@given(frames(), st.data())
def test_a_truncated_frame_is_not_found(frame: LoggedBatch, data: st.DataObject) -> None:
    packed = bytes(encode_frame(frame))
    cut = data.draw(st.integers(0, len(packed) - 1))
    assert list(scan_frames(InMemory(packed[:cut]))) == []


def test_equal_keys_of_two_endpoints_differ() -> None:
    key = os.urandom(4).hex()
    assert key_hash("a", key) == key_hash("a", key)
    assert key_hash("a", key) != key_hash("b", key)
