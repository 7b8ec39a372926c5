"""Fixed parties and a factory of sealed work, for each suite that the installed library has."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from lattice.core.chat import Usage
from lattice.sealing.envelope import Envelope, OpenedRequest, SealedRequest, open_request, seal_request
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import KeyConfig, issue_key_config, verify_key_config
from lattice.sealing.suites import Suite, WorkKeyPair, available_suites
from lattice.sealing.trailer import Trailer

NOW = 1_767_225_600_000
RUNTIME = "lat_01kdv2f3000000000000000000"


class Party(NamedTuple):
    """A runtime, a sender and the runtime's key, under one suite."""

    suite: Suite
    runtime: IdentityKey
    sender: IdentityKey
    config: KeyConfig
    pair: WorkKeyPair

    def seal(self, body: bytes = b"{}", **changes: Any) -> tuple[Envelope, SealedRequest]:
        """Seal with ordinary values."""
        values: dict[str, Any] = {
            "config": self.config,
            "sender": self.sender,
            "work_id": "work_01",
            "model": "m",
            "max_output_tokens": 64,
            "stream": True,
            "task": "chat",
            "now_ms": NOW,
        }
        return seal_request(body=body, **{**values, **changes})

    def open(self, envelope: Envelope) -> OpenedRequest:
        """Open as the runtime does, from the encoded bytes."""
        return open_request(Envelope.decode(envelope.encode()), self.pair, RUNTIME)


def make_party(suite: Suite) -> Party:
    """New keys throughout."""
    runtime = IdentityKey.generate()
    signed, pair = issue_key_config(runtime, RUNTIME, "interactive", suite, NOW)
    return Party(suite, runtime, IdentityKey.generate(), verify_key_config(signed, runtime.public, RUNTIME), pair)


def sealed_reply(opened: OpenedRequest, payloads: list[bytes], attempt: int = 1) -> list[tuple[bytes, int, bool]]:
    """All frames of a reply with one token per payload; the last payload goes into the last frame."""
    sealer = opened.reply_sealer(attempt)
    frames = [(sealer.seal(payload, i + 1), i + 1, False) for i, payload in enumerate(payloads[:-1])]
    trailer = Trailer(finish_reason="stop", usage=Usage(5, len(payloads)))
    return [*frames, (sealer.seal_final(payloads[-1], trailer), len(payloads), True)]


@pytest.fixture(scope="session", params=available_suites(), ids=lambda suite: suite.name)
def party(request: pytest.FixtureRequest) -> Party:
    """One party for each suite."""
    return make_party(request.param)


@pytest.fixture(scope="session")
def plain_party() -> Party:
    """One party, where the suite makes no difference."""
    return make_party(Suite.X25519)
