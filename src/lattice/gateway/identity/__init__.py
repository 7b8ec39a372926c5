"""Who is asking: accounts, developer keys, scopes, and the cache that keeps all of it off the hot path."""

from lattice.gateway.identity.accounts import AccountRow, create_account, get_account, list_accounts
from lattice.gateway.identity.cache import KeyCache
from lattice.gateway.identity.keys import (
    KeyRecord,
    NewKey,
    authenticate,
    create_key,
    get_key,
    list_keys,
    revoke_key,
    touch_keys,
)
from lattice.gateway.identity.owner import OwnerKey, bootstrap_owner
from lattice.gateway.identity.pepper import Pepper, load_pepper
from lattice.gateway.identity.rates import RequestRates
from lattice.gateway.identity.scopes import ALL_SCOPES, DEFAULT_SCOPES, Scope

__all__ = [
    "ALL_SCOPES",
    "DEFAULT_SCOPES",
    "AccountRow",
    "KeyCache",
    "KeyRecord",
    "NewKey",
    "OwnerKey",
    "Pepper",
    "RequestRates",
    "Scope",
    "authenticate",
    "bootstrap_owner",
    "create_account",
    "create_key",
    "get_account",
    "get_key",
    "list_accounts",
    "list_keys",
    "load_pepper",
    "revoke_key",
    "touch_keys",
]
