"""What a credential may do. The strings are public and fixed."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """One permission."""

    INFERENCE = "lattice:compute:inference"
    WORKSPACE_ONLY = "lattice:compute:workspace_only"
    MARKETPLACE = "lattice:compute:marketplace"
    CATALOG_READ = "lattice:compute:catalog:read"
    USAGE_READ = "lattice:compute:usage:read"
    PERSONAL_RUNTIME_MANAGE = "lattice:compute:personal_runtime:manage"
    MODELS_MANAGE = "lattice:models:manage"
    WORKERS_MANAGE = "lattice:workers:manage"
    TOKENS_MANAGE = "lattice:tokens:manage"
    KEYS_MANAGE = "lattice:keys:manage"
    CREDITS_READ = "lattice:credits:read"
    ADMIN = "lattice:admin"
    OPENID = "openid"
    OFFLINE_ACCESS = "offline_access"


OAUTH_SCOPES = frozenset({Scope.OPENID, Scope.OFFLINE_ACCESS})
"""They only mean something to the authorization server, so a developer key never has them."""

ALL_SCOPES = frozenset(Scope) - OAUTH_SCOPES
"""Everything that a developer key may have; the owner's first key has it all."""

DEFAULT_SCOPES = frozenset({Scope.INFERENCE, Scope.CATALOG_READ, Scope.USAGE_READ, Scope.CREDITS_READ})
"""What a key gets that asks for nothing: it may use and look, not manage."""

MANAGING_SCOPES = frozenset({Scope.KEYS_MANAGE, Scope.ADMIN})
"""A key with one of these can make keys, so a spend cap or a model list on it would bind nobody."""
