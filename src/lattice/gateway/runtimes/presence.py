"""Turns an authenticated poll into a live link: verifies what the daemon announces and keeps its record current."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lattice.core.clock import SECOND_MS, Clock
from lattice.core.errors import LatticeError
from lattice.core.relay import Announcement
from lattice.gateway.relay.hub import Hub
from lattice.gateway.relay.link import Link
from lattice.gateway.runtimes.rows import RuntimeRow, pack_key_configs, save_announcement, touch_seen
from lattice.gateway.store.database import Store
from lattice.sealing.identity import PublicIdentity
from lattice.sealing.key_config import KeyConfig, SignedKeyConfig, verify_key_config

SEEN_EVERY_MS = 10 * SECOND_MS
MAX_MODELS = 1000
MAX_KEY_CONFIGS = 16
MAX_MODEL_ID = 200
MAX_ANNOUNCEMENT_BYTES = 256 * 1024

_encode = msgspec.msgpack.Encoder().encode


class Presence:
    """Creates and refreshes links."""

    def __init__(self, hub: Hub, store: Store, clock: Clock, max_queue: int) -> None:
        self._hub = hub
        self._store = store
        self._clock = clock
        self._max_queue = max_queue
        self._seen: dict[str, int] = {}

    def now_ms(self) -> int:
        """The gateway's clock."""
        return self._clock.now_ms()

    async def link(self, runtime: RuntimeRow, announcement: Announcement | None) -> Link:
        """The runtime's link; made on the first poll, which must announce."""
        if runtime.identity_key is None:
            raise LatticeError("invalid_credential", f"{runtime.id} was never paired.")
        link = self._hub.links.get(runtime.id)
        if link is not None and link.identity.raw != runtime.identity_key:
            # Paired anew with another machine: nothing of the old one may go on.
            self._hub.drop(runtime.id, "was paired with another machine")
            link = None
        if link is None:
            if announcement is None:
                raise LatticeError("lease_lost", "The gateway was restarted; open a new session and announce.")
            identity = PublicIdentity.from_bytes(runtime.identity_key)
            link = Link(runtime.id, runtime.account_id, runtime.kind, identity, self._max_queue)
            self._hub.links[runtime.id] = link  # now: two first polls at once must not make two links
        if announcement is not None:
            await self._announce(link, announcement)
        await self._touch(runtime.id)
        if self._hub.links.get(runtime.id) is not link:
            raise LatticeError("lease_lost", "The runtime was revoked or paired anew.")
        return link

    async def _announce(self, link: Link, announcement: Announcement) -> None:
        encoded_announcement = _encode(announcement)
        _check(announcement, len(encoded_announcement))
        config, encoded = newest_interactive(announcement.key_configs, link.identity, link.runtime_id)
        await self._store.write(
            save_announcement,
            link.runtime_id,
            encoded_announcement,
            pack_key_configs(announcement.key_configs),
            self.now_ms(),
        )
        link.announce(announcement, config, encoded)

    async def _touch(self, runtime_id: str) -> None:
        now = self.now_ms()
        if now - self._seen.get(runtime_id, 0) >= SEEN_EVERY_MS:
            self._seen[runtime_id] = now
            await self._store.write(touch_seen, [(runtime_id, now)])


def _check(announcement: Announcement, size: int) -> None:
    """Refuse what would not fit a record, or what no request could be sealed for."""
    if (
        len(announcement.models) > MAX_MODELS
        or len(announcement.key_configs) > MAX_KEY_CONFIGS
        or size > MAX_ANNOUNCEMENT_BYTES
    ):
        raise LatticeError("invalid_request", "The announcement lists too many models or key configurations.")
    for model in announcement.models:
        if not 0 < len(model.id) <= MAX_MODEL_ID or not model.id.isprintable():
            raise LatticeError("invalid_request", f"A model's id has from 1 to {MAX_MODEL_ID} printable characters.")
        if not 0 < model.default_max_output_tokens < 2**31:
            raise LatticeError("invalid_request", "A model's `default_max_output_tokens` is out of range.")


def newest_interactive(
    encoded: Iterable[bytes], identity: PublicIdentity, runtime_id: str
) -> tuple[KeyConfig | None, bytes]:
    """The newest interactive key configuration, after verifying the signature of every one."""
    newest: tuple[KeyConfig | None, bytes] = (None, b"")
    for item in encoded:
        config = verify_key_config(SignedKeyConfig.decode(item), identity, runtime_id)
        if config.purpose == "interactive" and (newest[0] is None or config.not_after_ms > newest[0].not_after_ms):
            newest = (config, item)
    return newest
