"""The one object that holds a gateway's parts; every route is handed it and nothing is global."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.requests import Request

from lattice.core.clock import MINUTE_MS, Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.core.models import CatalogueTarget, PersonalTarget
from lattice.gateway.chat.service import WorkService
from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.ledger.prices import PriceBook
from lattice.gateway.metrics import Metrics
from lattice.gateway.relay.hub import Hub
from lattice.gateway.routing import Route, route_catalogue, route_personal
from lattice.gateway.runtimes.credentials import RuntimeCredentials
from lattice.gateway.runtimes.pairing import Pairing
from lattice.gateway.runtimes.rows import RuntimeRow, get_runtime
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.store.database import Store
from lattice.sealing.identity import IdentityKey
