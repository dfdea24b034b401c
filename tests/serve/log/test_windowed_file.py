"""A windowed file returns the bytes of a file as it was, whatever happens to the file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clewline.serve.log.windowed_file import open_windowed

places = st.integers(0, 300)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=250), st.integers(1, 80), st.lists(st.tuples(places, places), max_size=8))
@example(b"ab", 1, [(1, 2), (0, 2)]).via("backwards, by more than a window")
@example(b"abcdefgh", 4, [(4, 8), (6, 2)]).via("an end before the start, and before the window")
def test_reads_in_any_order_equal_slices_of_the_whole(
    tmp_path: Path, data: bytes, window: int, reads: list[tuple[int, int]]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with open_windowed(path, window) as extent:
        assert len(extent) == len(data)
        for start, end in reads:
            assert extent.read(start, end) == data[start:end]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text("abc", max_size=60), st.text("abc", min_size=1, max_size=4), st.integers(4, 20), places
)
def test_a_pattern_is_found_across_windows(
    tmp_path: Path, text: str, pattern: str, window: int, start: int
) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with open_windowed(path, window) as extent:
        assert extent.find(pattern.encode(), start) == text.find(pattern, start)


def test_a_file_that_is_truncated_returns_fewer_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10_000))
    with open_windowed(path, 100) as extent:
        path.write_bytes(bytes(5000))
        assert len(extent.read(4900, 5100)) == 100
        assert extent.read(6000, 7000) == b""
