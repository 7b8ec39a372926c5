"""Pairing against an in-test gateway: what it must prove, and what a crash must not lose."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.runtime.allow import AllowList
from lattice.runtime.machine import load_identity, load_pairing
from lattice.runtime.pairing import REDEEM_PATH, redeem
from lattice.runtime.state import StateDir
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.key_config import SignedKeyConfig, verify_key_config
from lattice.sealing.pairing import (
    REDEMPTION_LABEL,
    app_key_mac,
    bootstrap_string,
    new_pairing_secret,
    pairing_mac,
    redemption_proof_message,
)
from tests.unit.runtime.machines import RUNTIME
from tests.unit.runtime.servers import listening

TOKEN = "lbt_" + "t" * 32
CHALLENGE = b"c" * 32


class PairingGateway:
    """The redemption route; `change` alters its first answer, `tell` its second."""

    def __init__(self) -> None:
        self.key = IdentityKey.generate().public.text
        self.app = IdentityKey.generate().public
        self.secret: str | None = new_pairing_secret()
        self.change: dict[str, Any] = {}
        self.tell: dict[str, Any] = {}
        self.refusal: LatticeError | None = None
        self.redemptions: list[dict[str, Any]] = []
        self.bodies: list[str] = []
        self.origin = ""

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post(REDEEM_PATH, self._redeem)
        async with listening(app) as self.origin:
            yield self.origin

    @property
    def bootstrap(self) -> str:
        return TOKEN if self.secret is None else bootstrap_string(TOKEN, self.secret)

    async def _redeem(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.text())
        body = await request.json()
        if self.refusal:
            return web.json_response(self.refusal.body(), status=self.refusal.status)
        if "proof" not in body:
            return web.json_response(self._challenge())
        self._verify(body)
        self.redemptions.append(body)
        credential = f"rlc_{len(self.redemptions)}"
        answer = {"runtime": RUNTIME, "credential": credential, "gateway_key": self.key, "relay_url": self.origin}
        return web.json_response({**answer, **self.tell}, status=201)

    def _challenge(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "runtime": RUNTIME,
            "origin": self.origin,
            "challenge": b64url(CHALLENGE),
            "gateway_key": self.key,
            "app_key": None,
            "app_key_mac": None,
        }
        if self.secret is not None:
            mac = app_key_mac(self.secret, origin=self.origin, runtime=RUNTIME, app_key=self.app.raw)
            answer |= {"app_key": self.app.text, "app_key_mac": b64url(mac)}
        return {**answer, **self.change}

    def _verify(self, body: dict[str, Any]) -> None:
        identity = PublicIdentity.from_text(body["identity_key"])
        config = unb64url(body["key_config"])
        token_hash = hashlib.sha256(TOKEN.encode()).digest()
        message = redemption_proof_message(unb64url(body["challenge"]), token_hash, config)
        identity.verify(REDEMPTION_LABEL, message, unb64url(body["proof"]))
        verify_key_config(SignedKeyConfig.decode(config), identity, RUNTIME)
        if self.secret is None:
            assert body["mac"] is None
        else:
            expected = pairing_mac(
                self.secret,
                origin=self.origin,
                runtime=RUNTIME,
                identity_key=identity.raw,
                key_config=config,
                app_key=self.app.raw,
            )
            assert unb64url(body["mac"]) == expected


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


async def refused(gateway: PairingGateway, state: StateDir, url: str | None = None) -> LatticeError:
    async with gateway.run() as address:
        with pytest.raises(LatticeError) as caught:
            await redeem(url or address, gateway.bootstrap, state)
    assert load_pairing(state) is None
    assert AllowList(state).entries() == ()
    return caught.value


async def test_a_verified_pairing_saves_everything(state: StateDir) -> None:
    gateway = PairingGateway()
    async with gateway.run() as url:
        pairing = await redeem(url, gateway.bootstrap, state, name="my machine")
    assert load_pairing(state) == pairing
    assert pairing.verified
    assert (pairing.runtime, pairing.credential, pairing.relay_url) == (RUNTIME, "rlc_1", gateway.origin)
    assert {(e.key, e.kind) for e in AllowList(state).entries()} == {
        (gateway.key, "gateway"),
        (gateway.app.text, "app"),
    }
    assert gateway.redemptions[0]["name"] == "my machine"
    assert gateway.secret is not None
    assert gateway.secret not in "".join(gateway.bodies)
    assert "." not in gateway.redemptions[0]["token"]


async def test_without_a_secret_only_the_gateway_is_allowed(state: StateDir) -> None:
    gateway = PairingGateway()
    gateway.secret = None
    gateway.change = {"app_key": gateway.app.text}
    async with gateway.run() as url:
        pairing = await redeem(url, gateway.bootstrap, state)
    assert not pairing.verified
    assert [e.kind for e in AllowList(state).entries()] == ["gateway"]


async def test_a_crash_before_saving_loses_nothing(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = PairingGateway()

    def crash(*_args: object) -> None:
        raise KeyboardInterrupt

    async with gateway.run() as url:
        with monkeypatch.context() as patch:
            patch.setattr("lattice.runtime.pairing.save_pairing", crash)
            with pytest.raises(KeyboardInterrupt):
                await redeem(url, gateway.bootstrap, state)
        assert load_pairing(state) is None
        identity = load_identity(state)
        pairing = await redeem(url, gateway.bootstrap, state)
    assert pairing.credential == "rlc_2"
    assert identity is not None
    assert [r["identity_key"] for r in gateway.redemptions] == [identity.public.text] * 2
    assert len(AllowList(state).entries()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"app_key_mac": None},
        {"app_key_mac": "AAAA"},
        {"app_key_mac": "not base64!"},
        {"app_key": None, "app_key_mac": None},
        {"app_key": IdentityKey.generate().public.text},
        {"runtime": "lat_01m806efj0gzja7vzw6hq2gf8w"},
        {"gateway_key": "nonsense"},
        {"challenge": "not base64!"},
    ],
)
async def test_a_gateway_that_cannot_prove_the_apps_key_is_refused(state: StateDir, change: dict[str, Any]) -> None:
    gateway = PairingGateway()
    gateway.change = change
    assert (await refused(gateway, state)).code == "pairing_invalid"
    assert gateway.redemptions == []


async def test_a_wrong_secret_is_refused(state: StateDir) -> None:
    gateway = PairingGateway()
    async with gateway.run() as url:
        with pytest.raises(LatticeError) as caught:
            await redeem(url, bootstrap_string(TOKEN, new_pairing_secret()), state)
    assert caught.value.code == "pairing_invalid"


async def test_a_gateway_under_another_origin_is_refused(state: StateDir) -> None:
    gateway = PairingGateway()
    gateway.change = {"origin": "https://honest.example"}
    error = await refused(gateway, state)
    assert error.code == "pairing_invalid"
    assert "honest.example" in error.message


async def test_loopback_names_are_one_origin(state: StateDir) -> None:
    gateway = PairingGateway()
    async with gateway.run() as url:
        await redeem(url.replace("127.0.0.1", "localhost"), gateway.bootstrap, state)


@pytest.mark.parametrize("tell", [{"gateway_key": IdentityKey.generate().public.text}, {"runtime": "lat_other"}])
async def test_a_gateway_that_changes_its_answer_is_refused(state: StateDir, tell: dict[str, Any]) -> None:
    gateway = PairingGateway()
    gateway.tell = tell
    assert (await refused(gateway, state)).code == "pairing_invalid"


@pytest.mark.parametrize("code", ["bootstrap_token_invalid", "bootstrap_token_expired", "bootstrap_token_used"])
async def test_the_gateways_refusal_keeps_its_code(state: StateDir, code: str) -> None:
    gateway = PairingGateway()
    gateway.refusal = LatticeError(code)
    assert (await refused(gateway, state)).code == code


async def test_plain_http_to_another_machine_is_refused_before_anything_is_sent(state: StateDir) -> None:
    with pytest.raises(LatticeError) as caught:
        await redeem("http://gateway.example", TOKEN, state)
    assert caught.value.code == "config_invalid"


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://", "http://localhost:99999"])
async def test_a_wrong_address_is_named(state: StateDir, url: str) -> None:
    with pytest.raises(LatticeError) as caught:
        await redeem(url, TOKEN, state)
    assert caught.value.code == "config_invalid"


async def test_no_gateway_is_unreachable(state: StateDir) -> None:
    with pytest.raises(LatticeError) as caught:
        await redeem("http://127.0.0.1:1", TOKEN, state)
    assert caught.value.code == "gateway_unreachable"


async def test_pairing_anew_replaces_the_gateway_and_keeps_the_identity(state: StateDir) -> None:
    first, second = PairingGateway(), PairingGateway()
    for gateway in (first, second):
        async with gateway.run() as url:
            await redeem(url, gateway.bootstrap, state)
    keys = {entry.key: entry.kind for entry in AllowList(state).entries()}
    assert keys == {first.app.text: "app", second.app.text: "app", second.key: "gateway"}
    assert first.redemptions[0]["identity_key"] == second.redemptions[0]["identity_key"]
