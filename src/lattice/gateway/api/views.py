"""The JSON of the control plane: what the routes take and give, as OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from lattice.gateway.identity import AccountRow, KeyRecord
from lattice.gateway.ledger import Credits, EntryRow, UsageRow

T = TypeVar("T")

MAX_MICRO = 10**15


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


Printable = AfterValidator(_printable)
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), Printable]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500), Printable]
AccountId = Annotated[str, StringConstraints(pattern=r"^acc_[0-9a-z]{26}$")]
WorkId = Annotated[str, StringConstraints(pattern=r"^(work|wkr)_[0-9a-z]{26}$")]
Micro = Annotated[int, Field(ge=0, le=MAX_MICRO, strict=True)]
Milliseconds = Annotated[int, Field(ge=0, le=2**53, strict=True)]
ModelId = Annotated[str, StringConstraints(min_length=1, max_length=300), Printable]


class Body(BaseModel):
    """A request body: a member that it does not know is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class NewAccountBody(Body):
    """`POST /v1/accounts`."""

    name: Name


class NewKeyBody(Body):
    """`POST /v1/api-keys`. `account` is for an administrator who makes a key for somebody else."""

    name: Name
    scopes: list[str] | None = Field(None, max_length=32)
    allowed_models: list[ModelId] | None = Field(None, max_length=200)
    spend_cap_micro: Micro | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    expires_at_ms: Milliseconds | None = None
    account: AccountId | None = None


class GrantBody(Body):
    """`POST /v1/credits/grants`."""

    account: AccountId
    amount_micro: Annotated[int, Field(ge=1, le=MAX_MICRO, strict=True)]
    reason: Reason | None = None


class Page(BaseModel, Generic[T]):
    """A page of a list; `next_cursor` is null on the last one."""

    data: list[T]
    next_cursor: str | None


class AccountView(BaseModel):
    """An account."""

    id: str
    name: str
    created_at_ms: int

    @classmethod
    def of(cls, row: AccountRow) -> AccountView:
        """The view of a row."""
        return cls(id=row.id, name=row.name, created_at_ms=row.created_at_ms)


class KeyView(BaseModel):
    """A developer key, without its secret."""

    id: str
    account: str
    name: str
    prefix: str
    scopes: list[str]
    allowed_models: list[str] | None
    spend_cap_micro: int | None
    requests_per_minute: int | None
    expires_at_ms: int | None
    revoked_at_ms: int | None
    last_used_at_ms: int | None
    created_at_ms: int

    @classmethod
    def of(cls, record: KeyRecord) -> KeyView:
        """The view of a record."""
        return cls(**key_members(record))


class NewKeyView(KeyView):
    """A key that was just made. `secret` cannot be had again."""

    secret: str


class OwnKeyView(KeyView):
    """The key that asks, and what it has spent, running work counted at its hold."""

    spent_micro: int


class CreditsView(BaseModel):
    """A balance, in micro-credits."""

    account: str
    available_micro: int
    held_micro: int

    @classmethod
    def of(cls, account_id: str, row: Credits) -> CreditsView:
        """The view of a balance."""
        return cls(account=account_id, available_micro=row.available_micro, held_micro=row.held_micro)


class GrantView(CreditsView):
    """A grant and the balance after it."""

    amount_micro: int
    reason: str | None


class UsageView(BaseModel):
    """One metered answer."""

    id: str
    key: str
    runtime: str
    work: str
    model: str
    task: str
    sealing: str
    prompt_tokens: int
    completion_tokens: int
    charged_micro: int
    created_at_ms: int

    @classmethod
    def of(cls, row: UsageRow) -> UsageView:
        """The view of a row."""
        return cls(
            id=row.id,
            key=row.key_id,
            runtime=row.runtime_id,
            work=row.work_id,
            model=row.model,
            task=row.task,
            sealing=row.sealing,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            charged_micro=row.charged_micro,
            created_at_ms=row.created_at_ms,
        )


class EntryView(BaseModel):
    """One posting; those with the same `transaction` sum to zero."""

    id: str
    transaction: str
    kind: str
    ledger_account: str
    amount_micro: int
    work: str | None
    reason: str | None
    created_at_ms: int

    @classmethod
    def of(cls, row: EntryRow) -> EntryView:
        """The view of a row."""
        return cls(
            id=row.id,
            transaction=row.transaction_id,
            kind=row.kind,
            ledger_account=row.ledger_account,
            amount_micro=row.amount_micro,
            work=row.work_id,
            reason=row.reason,
            created_at_ms=row.created_at_ms,
        )


def key_members(record: KeyRecord) -> dict[str, Any]:
    """A record's public members."""
    models = record.allowed_models
    return {
        "id": record.id,
        "account": record.account_id,
        "name": record.name,
        "prefix": record.prefix,
        "scopes": sorted(record.scopes),
        "allowed_models": None if models is None else sorted(models),
        "spend_cap_micro": record.spend_cap_micro,
        "requests_per_minute": record.requests_per_minute,
        "expires_at_ms": record.expires_at_ms,
        "revoked_at_ms": record.revoked_at_ms,
        "last_used_at_ms": record.last_used_at_ms,
        "created_at_ms": record.created_at_ms,
    }
