"""The one object that holds a gateway's parts; every route is handed it and nothing is global."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request

from lattice.core.clock import SECOND_MS, Clock
from lattice.core.errors import LatticeError
from lattice.core.models import CatalogueTarget, PersonalTarget
from lattice.gateway.api.credentials import presented_secret, request_guard
from lattice.gateway.catalogue import Catalogue
from lattice.gateway.chat.service import WorkService
from lattice.gateway.encrypted.model_rows import find_model
from lattice.gateway.encrypted.platform import EncryptedPlatform
from lattice.gateway.idempotency import Guard
from lattice.gateway.identity.cache import KeyCache
from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.identity.rates import RequestRates
from lattice.gateway.metrics import Metrics
from lattice.gateway.relay.hub import Hub
from lattice.gateway.routing import Route, route_catalogue, route_personal
from lattice.gateway.runtimes.credentials import RuntimeCredentials
from lattice.gateway.runtimes.pairing import Pairing
from lattice.gateway.runtimes.presence import Presence
from lattice.gateway.runtimes.rows import find_runtime
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.store.database import Store
from lattice.gateway.workers.platform import WorkerPlatform
from lattice.sealing.header import Task
from lattice.sealing.identity import IdentityKey


@dataclass
class Gateway:
    """An open gateway."""

    settings: GatewaySettings
    clock: Clock
    store: Store
    pepper: Pepper
    keys: KeyCache
    rates: RequestRates
    metrics: Metrics
    hub: Hub
    catalogue: Catalogue
    works: WorkService
    credentials: RuntimeCredentials
    presence: Presence
    pairing: Pairing
    sender_key: IdentityKey
    encrypted: EncryptedPlatform
    workers: WorkerPlatform

    async def authenticate(self, request: Request) -> KeyRecord:
        """Who is asking, on a control-plane route."""
        return await self.authenticate_headers(request.headers)

    async def authenticate_headers(self, headers: Headers) -> KeyRecord:
        """Who is asking: `Authorization: Bearer` or `x-api-key`; live and within its requests per minute."""
        key = await self.keys.authenticate(presented_secret(headers))
        self.rates.require(key)
        return key

    def guard(self, key: KeyRecord, headers: Headers, route: str, body: bytes) -> Guard | None:
        """The request's idempotency, where it names a key."""
        return request_guard(self.pepper, key, route, headers, body)

    async def route(self, key: KeyRecord, target: PersonalTarget | CatalogueTarget, task: Task) -> Route:
        """Where the request goes, or the catalogued reason why it can go nowhere."""
        now = self.clock.now_ms()
        if isinstance(target, CatalogueTarget):
            if target.encrypted_id is not None:
                raise await self._encrypted_only(key, target.encrypted_id)
            price = await self.catalogue.price(target.canonical)
            return route_catalogue(target, price, self.hub.links.values(), task, now)
        route = route_personal(target, self.hub.links, key.account_id, task, now)
        if route is None:
            raise await self._unreachable(key, target.runtime_id, now)
        return route

    async def _encrypted_only(self, key: KeyRecord, model_id: str) -> LatticeError:
        """An encrypted model refuses plaintext by construction; one that the caller may not see does not exist."""
        model = await self.store.read(find_model, model_id)
        if model is None or (model.account_id != key.account_id and model.visibility != "public"):
            return LatticeError("model_not_found")
        return LatticeError("encrypted_only")

    async def _unreachable(self, key: KeyRecord, runtime_id: str, now: int) -> LatticeError:
        row = await self.store.read(find_runtime, runtime_id)
        if row is None or row.account_id != key.account_id or row.kind != "personal":
            return LatticeError("personal_lattice_not_found")
        if row.revoked_at_ms is not None:
            return LatticeError("runtime_unreachable", f"{runtime_id} was revoked.")
        if row.identity_key is None:
            return LatticeError("runtime_unreachable", f"{runtime_id} is not paired with a machine yet.")
        link = self.hub.links.get(runtime_id)
        seen = max(row.last_seen_ms or 0, link.last_poll_ms if link else 0)
        if not seen:
            return LatticeError("runtime_unreachable", f"No daemon has polled for {runtime_id} yet.")
        seconds = max(0, now - seen) // SECOND_MS
        ago = f"{seconds // 60} minutes" if seconds >= 120 else f"{seconds} seconds"
        return LatticeError("runtime_unreachable", f"The daemon of {runtime_id} stopped polling {ago} ago.")
