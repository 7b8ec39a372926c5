"""Pairing as the minting app sees it: the secret stays here, the proof must be right, a pinned key never changes."""

from __future__ import annotations

import json

import httpx2
import pytest

from lattice.client.records import Trust
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.identity import IdentityKey
from lattice.sealing.pairing import split_bootstrap
from tests.unit.client.conftest import Sdk
from tests.unit.client.played import ORIGIN, PlayedDaemon, fault

ASK = [{"role": "user", "content": "hello"}]


def started(sdk: Sdk) -> tuple[PlayedDaemon, str]:
    """A created and bootstrapped machine that has not redeemed yet."""
    runtime = sdk.create_personal_runtime("laptop")
    bootstrap: str = sdk.bootstrap_personal_runtime(runtime.id)
    return sdk.gateway.daemons[runtime.id], bootstrap


def code_of(sdk: Sdk, daemon: PlayedDaemon) -> str:
    """The error that sealing to the machine raises; and no work was sent."""
    with pytest.raises(LatticeError) as caught:
        sdk.chat_complete_for_personal_runtime(daemon.runtime_id, ASK)
    assert sdk.gateway.counted()["POST /chat/completions"] == 0
    return caught.value.code


def test_a_proved_machine_is_verified_and_pinned(sdk: Sdk) -> None:
    daemon = sdk.pair()
    runtime = sdk.verify_pairing(daemon.runtime_id)
    assert runtime.trust is Trust.VERIFIED
    assert runtime.words == daemon.identity.public.words
    pin = sdk.store.pin(ORIGIN, daemon.runtime_id)
    assert pin is not None
    assert (pin.public, pin.basis) == (daemon.identity.public, "pairing")
    assert sdk.store.pending(ORIGIN, daemon.runtime_id) == ()


def test_the_secret_never_reaches_the_gateway(sdk: Sdk) -> None:
    _, bootstrap = started(sdk)
    _, secret = split_bootstrap(bootstrap)
    assert secret is not None
    for request in sdk.gateway.requests:
        assert secret.encode() not in request.content
        assert secret not in str(request.url)
    assert secret not in repr(sdk.store.pending(ORIGIN, next(iter(sdk.gateway.daemons))))


def test_an_unpaired_machine_is_not_an_error_until_it_is_used(sdk: Sdk) -> None:
    daemon, _ = started(sdk)
    assert sdk.verify_pairing(daemon.runtime_id).trust is Trust.UNPAIRED
    assert code_of(sdk, daemon) == "runtime_unreachable"


def test_a_missing_proof_is_a_hard_error(sdk: Sdk) -> None:
    daemon, _ = started(sdk)
    daemon.allowed.add(sdk.store.sender().public)  # paired without the secret: a gateway that kept it out
    with pytest.raises(LatticeError) as caught:
        sdk.verify_pairing(daemon.runtime_id)
    assert caught.value.code == "pairing_invalid"
    assert code_of(sdk, daemon) == "pairing_invalid"
    assert sdk.list_personal_runtimes()[0].trust is Trust.PAIRING_INVALID


@pytest.mark.parametrize("what", ["mac", "identity", "key_config", "garbage", "origin"])
def test_a_wrong_proof_is_a_hard_error(sdk: Sdk, what: str) -> None:
    daemon, bootstrap = started(sdk)
    minted = sdk.gateway.minted[daemon.runtime_id]
    if what == "origin":
        with pytest.raises(AssertionError):  # the daemon itself refuses an app key that is bound to another gateway
            daemon.redeem(bootstrap, minted, "http://evil.test")
        return
    daemon.redeem(bootstrap, minted)
    assert daemon.proof is not None
    if what == "mac":
        daemon.proof["mac"] = b64url(bytes(32))
    if what == "garbage":
        daemon.proof["mac"] = "!!"
    if what == "identity":  # the gateway puts its own key in the machine's place
        daemon.identity = IdentityKey.generate()
        daemon.roll()
    if what == "key_config":
        daemon.roll()
        daemon.proof["key_config"] = b64url(daemon.config.encode())
    assert code_of(sdk, daemon) == "pairing_invalid"


def test_a_changed_identity_is_a_hard_error(sdk: Sdk) -> None:
    daemon = sdk.pair()
    sdk.verify_pairing(daemon.runtime_id)
    daemon.identity = IdentityKey.generate()
    daemon.roll()
    assert code_of(sdk, daemon) == "runtime_identity_changed"
    assert sdk.list_personal_runtimes()[0].trust is Trust.IDENTITY_CHANGED


def test_a_key_config_that_the_identity_did_not_sign_is_not_sealed_to(sdk: Sdk) -> None:
    daemon = sdk.pair()
    sdk.verify_pairing(daemon.runtime_id)
    other = PlayedDaemon(daemon.runtime_id, sdk.clock)
    sdk.gateway.overrides = {"key_config": b64url(other.config.encode())}
    assert code_of(sdk, daemon) == "envelope_invalid"


def test_pairing_again_from_this_app_replaces_the_pin(sdk: Sdk) -> None:
    daemon = sdk.pair()
    sdk.verify_pairing(daemon.runtime_id)
    bootstrap = sdk.bootstrap_personal_runtime(daemon.runtime_id)
    assert sdk.verify_pairing(daemon.runtime_id).trust is Trust.VERIFIED  # the old machine still answers
    daemon.identity = IdentityKey.generate()
    daemon.roll()
    daemon.redeem(bootstrap, sdk.gateway.minted[daemon.runtime_id])
    assert sdk.verify_pairing(daemon.runtime_id).trust is Trust.VERIFIED
    assert sdk.chat_complete_for_personal_runtime(daemon.runtime_id, ASK).receipt.verified


def test_either_of_two_minted_strings_may_be_the_one_that_is_used(sdk: Sdk) -> None:
    daemon, first = started(sdk)
    minted = dict(sdk.gateway.minted[daemon.runtime_id])
    sdk.bootstrap_personal_runtime(daemon.runtime_id)
    daemon.redeem(first, minted)
    assert sdk.verify_pairing(daemon.runtime_id).trust is Trust.VERIFIED


def test_a_machine_paired_elsewhere_is_unverified_until_its_words_are_confirmed(sdk: Sdk) -> None:
    daemon = sdk.gateway.add()
    daemon.allowed.add(sdk.store.sender().public)
    assert sdk.verify_pairing(daemon.runtime_id).trust is Trust.UNVERIFIED
    assert code_of(sdk, daemon) == "runtime_unverified"
    with pytest.raises(LatticeError) as caught:
        sdk.confirm_fingerprint(daemon.runtime_id, "six words of some other machine entirely")
    assert caught.value.code == "pairing_invalid"
    words = daemon.identity.public.words.upper().replace("-", " ")
    assert sdk.confirm_fingerprint(daemon.runtime_id, f"  {words} ").trust is Trust.VERIFIED
    assert sdk.chat_complete_for_personal_runtime(daemon.runtime_id, ASK).receipt.verified


def test_the_gateways_word_for_it_is_not_trust(sdk: Sdk) -> None:
    daemon = sdk.gateway.add()
    daemon.allowed.add(sdk.store.sender().public)
    sdk.gateway.overrides = {"trust": "verified", "verified": True}
    assert sdk.verify_pairing(daemon.runtime_id).trust is Trust.UNVERIFIED


def test_a_refused_mint_leaves_no_secret_behind(sdk: Sdk) -> None:
    runtime = sdk.create_personal_runtime("laptop")
    sdk.gateway.faults.append(fault(LatticeError("insufficient_scopes")))
    with pytest.raises(LatticeError):
        sdk.bootstrap_personal_runtime(runtime.id)
    assert sdk.store.pending(ORIGIN, runtime.id) == ()


def test_a_mint_that_may_have_arrived_keeps_its_secret_and_is_not_sent_again(sdk: Sdk) -> None:
    runtime = sdk.create_personal_runtime("laptop")
    sdk.gateway.requests.clear()
    sdk.gateway.faults.append(fault(httpx2.ReadError("reset")))
    with pytest.raises(LatticeError, match="may have arrived"):
        sdk.bootstrap_personal_runtime(runtime.id)
    assert len(sdk.store.pending(ORIGIN, runtime.id)) == 1
    assert len(sdk.gateway.requests) == 1


def test_revoking_forgets_the_pin(sdk: Sdk) -> None:
    daemon = sdk.pair()
    sdk.verify_pairing(daemon.runtime_id)
    assert sdk.revoke_personal_runtime(daemon.runtime_id).state == "revoked"
    assert sdk.store.pin(ORIGIN, daemon.runtime_id) is None


def test_lists_are_read_to_the_end_and_filtered(sdk: Sdk) -> None:
    for _ in range(4):
        sdk.gateway.add()
    daemon = sdk.pair()
    assert len(sdk.list_personal_runtimes()) == 5
    reachable = sdk.list_reachable_personal_runtimes()
    assert [r.id for r in reachable] == [daemon.runtime_id]
    assert reachable[0].model == f"lattice:personal:{daemon.runtime_id}"


def test_a_malformed_runtime_id_is_never_put_in_a_path(sdk: Sdk) -> None:
    with pytest.raises(LatticeError) as caught:
        sdk.get_personal_runtime("lat_x/../../api-keys")
    assert caught.value.code == "personal_lattice_not_found"
    assert not sdk.gateway.requests


def test_an_answer_about_another_machine_is_refused(sdk: Sdk) -> None:
    first, second = sdk.gateway.add(), sdk.gateway.add()
    sdk.gateway.overrides = {"id": second.runtime_id}
    with pytest.raises(LatticeError, match="another runtime"):
        sdk.get_personal_runtime(first.runtime_id)


def test_the_mint_request_holds_the_app_key_and_its_mac_only(sdk: Sdk) -> None:
    daemon, _ = started(sdk)
    minted = sdk.gateway.minted[daemon.runtime_id]
    assert set(minted) == {"app_key", "app_key_mac"}
    assert minted["app_key"] == sdk.store.sender().public.text
    assert json.loads(sdk.gateway.requests[-1].content) == minted
