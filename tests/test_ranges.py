"""Ranges and ETags as values: whatever a client sends, the part lies inside the file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filestore.api.ranges import ByteRange, Unsatisfiable, byte_range, unchanged


@given(
    st.text(max_size=40) | st.from_regex(r"bytes=[0-9]*-[0-9]*", fullmatch=True), st.integers(0, 99)
)
def test_whatever_range_is_asked_for_the_part_lies_inside_the_file(header: str, size: int) -> None:
    try:
        found = byte_range(header, None, size=size, etag='"e"')
    except Unsatisfiable:
        return
    assert found is None or (found.start >= 0 and 0 < found.length <= size - found.start)


def test_an_endless_number_is_not_parsed() -> None:
    assert byte_range(f"bytes={'9' * 100_000}-", None, size=5, etag='"e"') is None
    assert byte_range("bytes=1-" + "9" * 18, None, size=5, etag='"e"') == ByteRange(1, 4)


@pytest.mark.parametrize("header", [None, "", "e", '"x"', 'W/"x"', '"'])
def test_other_etags_are_no_match(header: str | None) -> None:
    assert not unchanged(header, '"e"')
