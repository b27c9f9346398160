"""What the pool keeps warm follows what is asked for."""

from hypothesis import given
from hypothesis import strategies as st

from executions.sandbox.demand import Demand, Kind

A, B, C = (Kind(f"sha256:{letter}", "none") for letter in "abc")


def test_nothing_asked_for_keeps_nothing_warm() -> None:
    assert Demand(300).wanted(4, {}, 0.0) == {}


def test_one_kind_gets_all() -> None:
    demand = Demand(300)
    demand.use(A, 0.0)
    assert demand.wanted(4, {}, 1.0) == {A: 4}


def test_kinds_share_in_proportion_to_their_use() -> None:
    demand = Demand(300)
    for _ in range(9):
        demand.use(A, 0.0)
    for _ in range(3):
        demand.use(B, 0.0)
    assert demand.wanted(8, {}, 0.0) == {A: 6, B: 2}


def test_a_rare_kind_still_gets_one() -> None:
    demand = Demand(300)
    for _ in range(100):
        demand.use(A, 0.0)
    demand.use(B, 0.0)
    assert demand.wanted(4, {}, 0.0) == {A: 3, B: 1}


def test_when_there_are_more_kinds_than_room_the_most_used_stay() -> None:
    demand = Demand(300)
    for kind, uses in ((A, 3), (B, 1), (C, 2)):
        for _ in range(uses):
            demand.use(kind, 0.0)
    assert demand.wanted(2, {}, 0.0) == {A: 1, C: 1}


def test_what_was_used_lately_counts_more() -> None:
    demand = Demand(300)
    for _ in range(4):
        demand.use(A, 0.0)
    for _ in range(4):
        demand.use(B, 200.0)
    wanted = demand.wanted(6, {}, 200.0)
    assert wanted[B] > wanted[A]


def test_one_not_used_for_the_whole_time_goes() -> None:
    demand = Demand(300)
    demand.use(A, 0.0)
    assert demand.wanted(4, {}, 300.0) == {A: 4}
    assert demand.wanted(4, {}, 300.1) == {}


def test_a_pinned_kind_stays_without_any_use_and_comes_first() -> None:
    demand = Demand(300)
    for _ in range(100):
        demand.use(A, 0.0)
    assert demand.wanted(2, {B: 1}, 0.0) == {B: 1, A: 1}
    assert demand.wanted(4, {B: 1}, 10_000.0) == {B: 1}


KINDS = st.sampled_from([Kind(str(number), "none") for number in range(6)])


@given(
    uses=st.lists(st.tuples(KINDS, st.floats(0, 1000)), max_size=40),
    size=st.integers(0, 16),
    pinned=st.dictionaries(KINDS, st.integers(1, 3), max_size=3),
)
def test_never_more_than_fit(
    uses: list[tuple[Kind, float]], size: int, pinned: dict[Kind, int]
) -> None:
    demand = Demand(300)
    for kind, at in sorted(uses, key=lambda use: use[1]):
        demand.use(kind, at)
    wanted = demand.wanted(size, pinned, 1000.0)
    assert sum(wanted.values()) <= size
    assert all(number > 0 for number in wanted.values())
