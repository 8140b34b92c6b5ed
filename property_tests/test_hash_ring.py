"""Sessions move between hosts only if they must, and each host gets its share."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snakepit_trio as snakepit
from snakepit_trio import HashRing

NAMES: Final = st.lists(st.text(max_size=12), min_size=1, max_size=6, unique=True)
IDS: Final = st.lists(st.text(max_size=20), max_size=30)
MANY: Final = [f"session_{number}" for number in range(20_000)]


@given(NAMES, st.text(max_size=12), IDS)
def test_sessions_move_to_a_new_host_and_nowhere_else(hosts: list[str], new: str, ids: list[str]) -> None:
    if new not in hosts:
        before, after = HashRing(hosts), HashRing([*hosts, new])
        for each in ids:
            assert after.of(each) in (before.of(each), new)


@given(NAMES.filter(lambda names: len(names) > 1), IDS)
def test_only_the_sessions_of_a_removed_host_move(hosts: list[str], ids: list[str]) -> None:
    gone, *left = hosts
    before, after = HashRing(hosts), HashRing(left)
    for each in ids:
        assert before.of(each) in (gone, after.of(each))


@given(NAMES, IDS, st.randoms())
def test_the_order_of_hosts_does_not_matter(hosts: list[str], ids: list[str], random: Random) -> None:
    mixed = list(hosts)
    random.shuffle(mixed)
    assert [HashRing(mixed).of(each) for each in ids] == [HashRing(hosts).of(each) for each in ids]


@pytest.mark.parametrize("number", [2, 3, 8, 16])
def test_each_host_gets_about_its_share_and_so_does_a_new_one(number: int) -> None:
    hosts = [f"host-{each}" for each in range(number)]
    before, after = HashRing(hosts), HashRing([*hosts, "host-new"])
    shares = Counter(map(before.of, MANY))
    assert all(0.6 < shares[host] * number / len(MANY) < 1.4 for host in hosts)
    moved = sum(before.of(each) != after.of(each) for each in MANY)
    assert 0.6 < moved * (number + 1) / len(MANY) < 1.4


def test_a_host_of_twice_the_weight_gets_twice_as_many() -> None:
    shares = Counter(map(HashRing({"small": 1, "large": 2, "tiny": 0.5}).of, MANY))
    assert 1.6 < shares["large"] / shares["small"] < 2.4
    assert 1.6 < shares["small"] / shares["tiny"] < 2.4


def test_these_places_stay_as_they_are_in_all_processes_and_versions() -> None:
    ring = HashRing(["host-a", "host-b", "host-c"])
    assert [ring.of(each) for each in ("alice", "bob", "", "\N{SNAKE}", "session_1")] == [
        "host-c",
        "host-c",
        "host-a",
        "host-b",
        "host-b",
    ]
    assert ring.hosts == ("host-a", "host-b", "host-c")
    assert repr(ring) == "HashRing(['host-a', 'host-b', 'host-c'])"


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ([], "no hosts"),
        ("host-a", "one text"),
        (["a", "a"], "'a' comes twice"),
        ([1], "no name"),
        ({"a": 0}, "weight of host 'a' is 0"),
        ({"a": float("nan")}, "weight"),
        ({"a": True}, "weight"),
        ({"a": 101}, "weight"),
        ({"a": "2"}, "weight"),
    ],
    ids=["none", "text", "twice", "number", "weightless", "nan", "bool", "heavy", "text-weight"],
)
def test_mistakes_are_told(hosts: object, message: str) -> None:
    with pytest.raises(snakepit.UsageError, match=message):
        HashRing(hosts)  # type: ignore[arg-type]  # it is what must be refused
    with pytest.raises(snakepit.UsageError, match="no text"):
        HashRing(["a"]).of(7)  # type: ignore[arg-type]  # it is what must be refused
