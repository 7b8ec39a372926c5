"""Bootstrap tokens and pairing: used, expired, forged or leaked tokens, wrong proofs, and a crash in between."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lattice.core.clock import MINUTE_MS, ManualClock
from lattice.core.ids import b64url, unb64url
from lattice.runtime.pairing import redeem as daemon_redeem
from lattice.runtime.state import StateDir
from lattice.sealing.identity import IdentityKey
from lattice.sealing.pairing import app_key_mac, bootstrap_string, new_pairing_secret, redemption_proof_message
from tests.callers import new_account
from tests.harness import PROOF_LABEL, REDEMPTIONS, LiveGateway, RelayRefused, ScriptedRuntime, running_gateway


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def live(tmp_path: Path, clock: ManualClock) -> AsyncIterator[LiveGateway]:
    async with running_gateway(tmp_path / "gateway", clock=clock) as running:
        yield running


class Machine(ScriptedRuntime):
    """A machine that has a record and a token, and has not redeemed it."""

    token: str

    @classmethod
    async def with_token(cls, live: LiveGateway, **mint: Any) -> Machine:
        machine = cls(live)
        machine.runtime = (await live.call("POST", "/v1/personal-runtimes", {"name": "m"}))[1]["id"]
        machine.token = await machine.mint(**mint)
        return machine

    async def mint(self, **mint: Any) -> str:
        status, minted = await self.live.call("POST", f"/v1/personal-runtimes/{self.runtime}/bootstrap-tokens", mint)
        assert status == 201, minted
        return str(minted["token"])

    async def state(self) -> dict[str, Any]:
        view: dict[str, Any] = (await self.live.call("GET", f"/v1/personal-runtimes/{self.runtime}"))[1]
        return view

    async def stranger(self) -> tuple[int, str]:
        """Another machine tries this one's token: status and code."""
        other = Machine(self.live)
        status, body = await other.redeem(self.token)
        return status, body.get("error", "")


async def test_a_used_token_is_no_use_to_another_machine(live: LiveGateway) -> None:
    machine = await Machine.with_token(live)
    assert (await machine.redeem(machine.token))[0] == 201
    assert await machine.stranger() == (409, "bootstrap_token_used")
    assert (await machine.state())["identity_key"] == machine.identity.public.text


async def test_a_challenge_uses_nothing_up(live: LiveGateway) -> None:
    """Whoever guesses at the first call must not be able to spoil the owner's token."""
    machine = await Machine.with_token(live)
    guess = {"token": machine.token, "identity_key": IdentityKey.generate().public.text}
    assert (await live.call("POST", REDEMPTIONS, guess, key=""))[0] == 200
    assert (await machine.redeem(machine.token))[0] == 201


async def test_an_expired_token(live: LiveGateway, clock: ManualClock) -> None:
    machine = await Machine.with_token(live)
    clock.advance(10 * MINUTE_MS)
    assert (await machine.redeem(machine.token))[1]["error"] == "bootstrap_token_expired"
    assert (await machine.state())["state"] == "unpaired"


async def test_a_token_that_expires_between_the_two_calls(live: LiveGateway, clock: ManualClock) -> None:
    machine = await Machine.with_token(live)
    own = machine.identity.public.text
    _, begun = await live.call("POST", REDEMPTIONS, {"token": machine.token, "identity_key": own}, key="")
    clock.advance(10 * MINUTE_MS)
    machine.new_key_config(begun["runtime"])
    body = _second_call(machine, begun)
    assert (await live.call("POST", REDEMPTIONS, body, key=""))[1]["error"] == "bootstrap_token_expired"


@pytest.mark.parametrize("token", ["", "lbt_", "lbt_" + "A" * 32, "A" * 36, "lbt_ü", "sk_lat_" + "A" * 43])
async def test_a_forged_token(live: LiveGateway, token: str) -> None:
    machine = Machine(live)
    status, body = await machine.redeem(token)
    assert (status, body["error"]) == (401, "bootstrap_token_invalid")


async def test_a_token_with_the_secret_behind_the_dot_is_void(live: LiveGateway) -> None:
    """The gateway has seen the pairing secret, so it could forge the pairing: the token must never work again."""
    machine = await Machine.with_token(live)
    whole = bootstrap_string(machine.token, new_pairing_secret())
    status, body = await machine.redeem(whole)
    assert (status, body["error"]) == (400, "pairing_secret_leaked")
    assert whole.partition(".")[2] not in str(body)
    assert (await machine.redeem(machine.token))[1]["error"] == "bootstrap_token_invalid"
    assert (await machine.state())["state"] == "unpaired"
    again = await machine.mint()
    assert (await machine.redeem(again))[0] == 201


async def test_a_missing_hmac_where_a_secret_was_minted(live: LiveGateway) -> None:
    """Both in the second call: a gateway, or somebody in between, cannot quietly turn the check off."""
    secret, app = new_pairing_secret(), IdentityKey.generate().public.raw
    made = Machine(live)
    made.runtime = (await live.call("POST", "/v1/personal-runtimes", {}))[1]["id"]
    mac = app_key_mac(secret, origin=live.url, runtime=made.runtime, app_key=app)
    token = await made.mint(app_key=b64url(app), app_key_mac=b64url(mac))
    status, body = await made.redeem(token)
    assert (status, body["error"]) == (409, "pairing_invalid")
    assert (await made.state())["state"] == "unpaired"
    assert (await made.redeem(token, mac=b64url(bytes(32))))[0] == 201  # only the minting client can judge it


async def test_a_wrong_hmac_is_kept_for_the_minting_client_to_find(live: LiveGateway) -> None:
    """The gateway cannot check it. It hands on exactly what the machine said, beside the key config that it covers."""
    machine = await Machine.with_token(live)
    await machine.redeem(machine.token, mac=b64url(b"w" * 32))
    pairing = (await machine.state())["pairing"]
    assert pairing["mac"] == b64url(b"w" * 32)
    assert unb64url(pairing["key_config"]) == machine.key_config
    assert (await machine.state())["verified"] is False


async def test_the_daemon_refuses_an_app_key_that_nobody_vouches_for(
    live: LiveGateway, clock: ManualClock, tmp_path: Path
) -> None:
    """A gateway that puts its own key in the app's place does not get on the machine's allow-list."""
    machine = await Machine.with_token(
        live, app_key=b64url(IdentityKey.generate().public.raw), app_key_mac=b64url(bytes(32))
    )
    state = StateDir(tmp_path / "machine")
    with pytest.raises(Exception, match="pairing_invalid"):
        await daemon_redeem(live.url, bootstrap_string(machine.token, new_pairing_secret()), state, clock=clock)
    assert state.read_bytes("pairing.json") is None
    assert state.read_bytes("allow.json") is None
    assert (await machine.state())["state"] == "unpaired"


def _second_call(machine: Machine, begun: dict[str, Any], signer: IdentityKey | None = None) -> dict[str, Any]:
    message = redemption_proof_message(
        unb64url(begun["challenge"]), hashlib.sha256(machine.token.encode()).digest(), machine.key_config
    )
    return {
        "token": machine.token,
        "identity_key": machine.identity.public.text,
        "challenge": begun["challenge"],
        "proof": b64url((signer or machine.identity).sign(PROOF_LABEL, message)),
        "key_config": b64url(machine.key_config),
    }


async def begun(machine: Machine) -> dict[str, Any]:
    """The first call."""
    own = machine.identity.public.text
    body = {"token": machine.token, "identity_key": own}
    answer: dict[str, Any] = (await machine.live.call("POST", REDEMPTIONS, body, key=""))[1]
    machine.new_key_config(answer["runtime"])
    return answer


@pytest.mark.parametrize(
    "spoil",
    [
        "another key signs",
        "another token's challenge",
        "another identity",
        "another key config",
        "a key config of another runtime",
        "an expired key config",
        "an empty proof",
        "no key config",
        "a small-order identity",
        "rubbish",
    ],
)
async def test_a_proof_that_does_not_fit(live: LiveGateway, clock: ManualClock, spoil: str) -> None:
    """Whoever knows a token still has to hold the identity key that it registers; and nothing is used up."""
    machine = await Machine.with_token(live)
    first = await begun(machine)
    body = _second_call(machine, first)
    if spoil == "another key signs":
        body = _second_call(machine, first, IdentityKey.generate())
    elif spoil == "another token's challenge":
        other = await Machine.with_token(live)
        other.identity = machine.identity
        body = _second_call(machine, {**first, "challenge": (await begun(other))["challenge"]})
    elif spoil == "another identity":
        body["identity_key"] = IdentityKey.generate().public.text
    elif spoil == "another key config":
        machine.new_key_config(machine.runtime)
        body["key_config"] = b64url(machine.key_config)
    elif spoil == "a key config of another runtime":
        machine.new_key_config("lat_" + "0" * 26)
        body = _second_call(machine, first)
    elif spoil == "an expired key config":
        clock.advance(-25 * 60 * MINUTE_MS)
        machine.new_key_config(machine.runtime)
        clock.advance(25 * 60 * MINUTE_MS)
        body = _second_call(machine, first)
    elif spoil == "an empty proof":
        body["proof"] = ""
    elif spoil == "no key config":
        del body["key_config"]
    elif spoil == "a small-order identity":
        body["identity_key"] = b64url(bytes(32))
    else:
        body |= {"challenge": "!", "proof": "=", "key_config": "é"}
    status, answer = await live.call("POST", REDEMPTIONS, body, key="")
    assert 400 <= status < 500, answer
    assert answer["error"] != "internal"
    assert (await machine.state())["state"] == "unpaired"
    assert (await machine.redeem(machine.token))[0] == 201


async def test_a_crash_between_redemption_and_save_loses_nothing(live: LiveGateway, clock: ManualClock) -> None:
    """The same identity key repeats it while the token lives; the credential that was lost stops working."""
    machine = await Machine.with_token(live)
    assert (await machine.redeem(machine.token))[0] == 201
    lost = machine.credential
    clock.advance(9 * MINUTE_MS)
    status, answer = await machine.redeem(machine.token)
    assert status == 201
    assert answer["credential"] != lost
    machine.credential, new = lost, machine.credential
    with pytest.raises(RelayRefused) as refused:
        await machine.poll()
    assert (refused.value.status, refused.value.code) == (401, "invalid_credential")
    machine.credential = new
    await machine.connect()
    assert (await machine.state())["state"] == "reachable"
    clock.advance(MINUTE_MS)
    assert (await machine.redeem(machine.token))[1]["error"] == "bootstrap_token_expired"


async def test_a_machine_paired_anew_takes_the_old_one_s_place_at_once(live: LiveGateway) -> None:
    """The replaced machine, with a poll still open, gets no more work; its running work fails; it is unverified."""

    old = await Machine.with_token(live)
    await old.redeem(old.token)
    await old.connect()
    fingerprint = {"fingerprint": old.identity.public.words}
    assert (await live.call("POST", f"/v1/personal-runtimes/{old.runtime}/fingerprint-confirmations", fingerprint))[0]
    assert (await old.state())["verified"] is True
    polling = await old.hold_poll()
    new = Machine(live)
    new.runtime, new.token = old.runtime, await old.mint()
    assert (await new.redeem(new.token))[0] == 201
    assert (await live.chat(new.model))[1]["error"]["code"] == "runtime_unreachable"
    with pytest.raises(RelayRefused) as refused:
        await polling
    assert refused.value.code == "invalid_credential"
    view = await new.state()
    assert (view["identity_key"], view["verified"]) == (new.identity.public.text, False)
    await new.connect()
    asking = asyncio.create_task(live.chat(new.model))
    await new.serve_one()
    assert (await asking)[0] == 200


async def test_a_revoked_runtime_cannot_be_paired_again(live: LiveGateway) -> None:
    """Its tokens are void, and no new one is made."""
    machine = await Machine.with_token(live)
    await live.call("DELETE", f"/v1/personal-runtimes/{machine.runtime}")
    assert (await machine.redeem(machine.token))[1]["error"] == "bootstrap_token_invalid"
    path = f"/v1/personal-runtimes/{machine.runtime}/bootstrap-tokens"
    assert (await live.call("POST", path, {}))[0] == 404


async def test_a_key_config_signed_by_somebody_else_is_not_announced(live: LiveGateway) -> None:
    """Callers seal to what the record shows, so only the paired identity may put a key there."""
    machine = await Machine.with_token(live)
    await machine.redeem(machine.token)
    genuine, impostor = machine.key_config, Machine(live)
    impostor.new_key_config(machine.runtime)
    machine.key_config = impostor.key_config
    with pytest.raises(RelayRefused) as refused:
        await machine.poll()
    assert refused.value.code == "envelope_invalid"
    assert unb64url((await machine.state())["key_config"]) == genuine


async def test_the_words_of_another_machine_verify_nothing(live: LiveGateway) -> None:
    machine = await Machine.with_token(live)
    await machine.redeem(machine.token)
    path = f"/v1/personal-runtimes/{machine.runtime}/fingerprint-confirmations"
    for words in (IdentityKey.generate().public.words, "", "one two"):
        assert (await live.call("POST", path, {"fingerprint": words}))[0] == 409
    assert (await machine.state())["verified"] is False


async def test_only_its_owner_mints_tokens(live: LiveGateway) -> None:
    machine = await Machine.with_token(live)
    _, key = await new_account(live)
    path = f"/v1/personal-runtimes/{machine.runtime}/bootstrap-tokens"
    assert (await live.call("POST", path, {}, key=key))[0] == 404
