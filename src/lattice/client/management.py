"""`ManagementClient`: what an operator or an account's owner does beside asking: keys, grants, capacity, models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lattice.client import account, personal
from lattice.client.compute import ComputeClient
from lattice.client.encrypted.provider import Provider
from lattice.client.records import PersonalRuntime
from lattice.client.settings import path_segment


class ManagementClient(ComputeClient, Provider):
    """A `ComputeClient` that also manages, and runs encrypted models (see `Provider`).

    Hosted capacity and grants need the scope `lattice:admin`.
    """

    def create_key(self, name: str, **options: Any) -> dict[str, Any]:
        """Make a developer key; its `secret` is in this answer only.

        Options: `scopes`, `allowed_models`, `spend_cap_micro`, `requests_per_minute`, `expires_at_ms`, `account`.
        """
        return self._driver.run(account.create_key(self._context, name, options))

    def list_keys(self, *, limit: int = 100) -> Iterator[dict[str, Any]]:
        """The account's keys, revoked ones too, without their secrets."""
        return self._every("/api-keys", limit)

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """Revoke a key at once."""
        return self._driver.run(self._context.delete(f"/api-keys/{path_segment(key_id)}"))

    def grant_credits(
        self, account_id: str, amount_micro: int, reason: str, *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Grant micro-credits to an account. With the same `idempotency_key` a repeat grants nothing more."""
        return self._driver.run(account.grant_credits(self._context, account_id, amount_micro, reason, idempotency_key))

    def create_account(self, name: str) -> dict[str, Any]:
        """Make an account; needs `lattice:admin`. Give it a key with `create_key(…, account=…)`, and credits."""
        return self._driver.run(account.create_account(self._context, name))

    def list_accounts(self, *, limit: int = 100) -> Iterator[dict[str, Any]]:
        """Every account; needs `lattice:admin`."""
        return self._every("/accounts", limit)

    def list_prices(self) -> list[dict[str, Any]]:
        """The catalogue of hosted models, in micro-credits per million tokens."""
        return self._driver.run(account.prices(self._context))

    def set_price(self, model: str, **price: Any) -> dict[str, Any]:
        """Add a model to the catalogue or change its price.

        Members: `input_micro_per_million`, `output_micro_per_million`, `default_max_output_tokens`, `context`.
        """
        return self._driver.run(account.set_price(self._context, model, price))

    def create_hosted_runtime(self, name: str) -> PersonalRuntime:
        """Make an unpaired record for hosted capacity."""
        return self._driver.run(personal.create(self._context, name, "hosted"))

    def list_hosted_runtimes(self) -> list[PersonalRuntime]:
        """Every hosted runtime."""
        return self._driver.run(personal.list_all(self._context, "hosted"))

    def bootstrap_hosted_runtime(self, runtime_id: str) -> str:
        """The string for `lattice-ctl relay connect` on the hosted machine."""
        return self._driver.run(personal.bootstrap(self._context, runtime_id, "hosted"))

    def verify_hosted_pairing(self, runtime_id: str) -> PersonalRuntime:
        """Check the pairing proof of a hosted machine that was bootstrapped here, and pin its identity key."""
        return self._driver.run(personal.fetch(self._context, runtime_id, "hosted"))

    def revoke_hosted_runtime(self, runtime_id: str) -> PersonalRuntime:
        """Revoke hosted capacity."""
        return self._driver.run(personal.revoke(self._context, runtime_id, "hosted"))
