"""Ids sort by time, secrets carry their prefix, and base64url has one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.ids import Prefix, SecretPrefix, b64url, is_id, new_id, new_secret, unb64url

NOW = 1_767_225_600_000


def test_an_id_has_its_prefix_and_26_characters() -> None:
    for prefix in Prefix:
        made = new_id(prefix, NOW)
        head, _, body = made.partition("_")
        assert (head, len(body)) == (prefix.value, 26)
        assert is_id(prefix, made)


def test_an_id_is_of_one_kind_only() -> None:
    made = new_id(Prefix.WORK, NOW)
    assert [prefix for prefix in Prefix if is_id(prefix, made)] == [Prefix.WORK]


def test_a_known_id_never_changes() -> None:
    assert new_id(Prefix.RUNTIME, NOW, bytes(10)) == "lat_01kdvdna000000000000000000"
    assert new_id(Prefix.RUNTIME, 0, b"\xff" * 10) == "lat_0000000000" + "z" * 16


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_ids_sort_by_creation(one: int, two: int, random: bytes) -> None:
    if one != two:
        assert (new_id(Prefix.WORK, one) < new_id(Prefix.WORK, two)) == (one < two)
    assert is_id(Prefix.WORK, new_id(Prefix.WORK, one, random))


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_id(Prefix.WORK, NOW) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "work",
        "work_",
        "work_01kdv2f300000000000000000",
        "work_01kdv2f30000000000000000000",
        "work_81kdv2f3000000000000000000",
        "work_01KDV2F3000000000000000000",
        "work_01kdv2f300000000000000000i",
        "work_01kdv2f3000000000000000000\n",
        "x_work_01kdv2f3000000000000000000",
        " work_01kdv2f3000000000000000000",
    ],
)
def test_what_only_looks_like_an_id_is_none(text: str) -> None:
    assert not is_id(Prefix.WORK, text)


def test_secrets_are_long_and_new_each_time() -> None:
    for prefix in SecretPrefix:
        one, two = new_secret(prefix), new_secret(prefix)
        assert one != two
        assert one.startswith(f"{prefix.value}_")
        assert len(unb64url(one.removeprefix(f"{prefix.value}_"))) == 32


@given(st.binary(max_size=100))
def test_base64url_comes_back(data: bytes) -> None:
    assert unb64url(b64url(data)) == data
    assert not set(b64url(data)) & set("+/=")


@pytest.mark.parametrize("text", ["A", "AA==", "AB", "AAB", "A+AA", "A/AA", "A AA", "AA\nAA", "\u00e9AAA", "AAAA="])
def test_another_spelling_of_the_same_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        unb64url(text)
