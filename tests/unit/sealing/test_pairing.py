"""Pairing: bootstrap strings and the HMACs under their secret."""

from __future__ import annotations

from typing import Any

import pytest

from lattice.core.errors import LatticeError
from lattice.core.ids import SecretPrefix, new_secret, unb64url
from lattice.sealing.pairing import (
    app_key_mac,
    bootstrap_string,
    new_pairing_secret,
    pairing_mac,
    redemption_proof_message,
    require_mac,
    split_bootstrap,
)

SECRET = new_pairing_secret()
GATEWAY_PART = new_secret(SecretPrefix.BOOTSTRAP)
COMMON: dict[str, Any] = {"origin": "https://gw.example", "runtime": "lat_1", "app_key": b"a" * 32}
FULL: dict[str, Any] = {**COMMON, "identity_key": b"i" * 32, "key_config": b"config"}


def test_a_secret_has_256_bits_and_is_new_each_time() -> None:
    assert len(unb64url(SECRET)) == 32
    assert new_pairing_secret() != new_pairing_secret()


def test_a_bootstrap_string_splits_where_it_was_joined() -> None:
    text = bootstrap_string(GATEWAY_PART, SECRET)
    assert split_bootstrap(text) == (GATEWAY_PART, SECRET)
    assert split_bootstrap(f"  {text}\n") == (GATEWAY_PART, SECRET)
    assert split_bootstrap(GATEWAY_PART) == (GATEWAY_PART, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "lbt_",
        SECRET,
        f"sk_lat_x.{SECRET}",
        f"{GATEWAY_PART}.",
        f"{GATEWAY_PART}.{SECRET}.",
        f"{GATEWAY_PART}.{SECRET[:-1]}",
        f"{GATEWAY_PART}.{SECRET}=",
        f"{GATEWAY_PART}. {SECRET}",
        f"lbt_\u00e9.{SECRET}",
        "lbt_" + "x" * 300,
    ],
)
def test_a_damaged_bootstrap_string_is_refused_without_echo(text: str) -> None:
    with pytest.raises(LatticeError) as caught:
        split_bootstrap(text)
    assert caught.value.code == "bootstrap_token_invalid"
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("gateway_part", "secret"),
    [("lbt_a.b", SECRET), ("x", SECRET), (GATEWAY_PART, "short"), (" " + GATEWAY_PART, SECRET)],
)
def test_a_bootstrap_string_that_would_not_split_is_not_made(gateway_part: str, secret: str) -> None:
    with pytest.raises(LatticeError, match="bootstrap_token_invalid"):
        bootstrap_string(gateway_part, secret)


def test_each_field_and_the_secret_change_the_macs() -> None:
    for make, fields in ((app_key_mac, COMMON), (pairing_mac, FULL)):
        macs = {make(SECRET, **fields), make(new_pairing_secret(), **fields)}
        for name, value in fields.items():
            macs.add(make(SECRET, **{**fields, name: value + value[:1]}))
        assert len(macs) == 2 + len(fields)
        assert all(len(mac) == 32 for mac in macs)


def test_fields_can_not_run_into_each_other() -> None:
    one = {**FULL, "identity_key": b"ab", "key_config": b"c"}
    two = {**FULL, "identity_key": b"a", "key_config": b"bc"}
    assert pairing_mac(SECRET, **one) != pairing_mac(SECRET, **two)


def test_one_mac_does_not_pass_for_the_other() -> None:
    assert app_key_mac(SECRET, **COMMON) != pairing_mac(SECRET, **{**FULL, "identity_key": b"", "key_config": b""})


def test_a_missing_or_wrong_mac_is_a_hard_error() -> None:
    mac = pairing_mac(SECRET, **FULL)
    require_mac(mac, bytes(mac))
    for given in (None, b"", mac[:-1], bytes(32)):
        with pytest.raises(LatticeError) as caught:
            require_mac(mac, given)
        assert caught.value.code == "pairing_invalid"


def test_a_secret_of_another_form_makes_no_mac() -> None:
    with pytest.raises(LatticeError, match="bootstrap_token_invalid"):
        app_key_mac("short", **COMMON)


def test_the_redemption_proof_covers_each_part() -> None:
    parts = (b"challenge", b"token hash", b"config")
    messages = {redemption_proof_message(*parts)}
    for i in range(3):
        messages.add(redemption_proof_message(*[part + b"x" * (i == j) for j, part in enumerate(parts)]))
    assert len(messages) == 4
