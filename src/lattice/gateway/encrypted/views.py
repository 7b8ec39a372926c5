"""The JSON of encrypted inference: what the routes take and give, as OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, Field, StringConstraints

from lattice.gateway.api.views import Body, Micro, Milliseconds, Name, Printable
from lattice.gateway.encrypted.evaluation_key_rows import KeysRow
from lattice.gateway.encrypted.model_rows import Exposure, ModelRow, Visibility
from lattice.gateway.encrypted.token_rows import TokenRecord
from lattice.gateway.encrypted.upload_rows import UploadKind, UploadRow
from lattice.gateway.encrypted.version_rows import SourceKind, VersionRow

Hash = bytes
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
UploadId = Annotated[str, StringConstraints(pattern=r"^upl_[0-9a-z]{26}$")]
EndUser = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), Printable]
WebhookUrl = Annotated[str, StringConstraints(max_length=2000), Printable]


class NewUploadBody(Body):
    """`POST /v1/uploads`: what is coming."""

    kind: UploadKind
    bytes: Annotated[int, Field(ge=1, le=2**40, strict=True)]
    sha256: Sha256


class UploadView(BaseModel):
    """An upload. Part n holds the bytes from n × `part_bytes`; all but the last are exactly so long."""

    id: str
    kind: UploadKind
    bytes: int
    sha256: str
    part_bytes: int
    parts: int
    received: list[int]
    state: str
    created_at_ms: int
    expires_at_ms: int

    @classmethod
    def of(cls, row: UploadRow) -> UploadView:
        """The view of a row."""
        received = [part for part in range(row.parts) if row.has(part)]
        members = {name: getattr(row, name) for name in cls.model_fields if name not in ("bytes", "received", "sha256")}
        return cls(**members, bytes=row.size, received=received, sha256=row.sha256.hex())


class ModelSettings(Body):
    """How a model's workers are run; what is left out has its default."""

    hardware_class: Annotated[str, StringConstraints(max_length=100), Printable] | None = None
    min_workers: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    max_workers: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    autostart: bool = False
    idle_seconds: Annotated[int, Field(ge=10, le=86_400, strict=True)] | None = None


class NewModelBody(Body):
    """`POST /v1/encrypted-models`."""

    name: Name
    visibility: Visibility = "private"
    weights_exposure: Exposure = "own"
    settings: ModelSettings = ModelSettings()
    webhook_url: WebhookUrl | None = None


class ChangedModelBody(Body):
    """`PATCH /v1/encrypted-models/{id}`: only what is named changes; `webhook_url: null` ends the webhook."""

    name: Name | None = None
    visibility: Visibility | None = None
    weights_exposure: Exposure | None = None
    settings: ModelSettings | None = None
    webhook_url: WebhookUrl | None = None


class VersionView(BaseModel):
    """A version. What comes after `reason` is known once it is ready."""

    model: str
    version: int
    state: str
    reason: str | None
    source_kind: str
    artefact_sha256: str | None
    artefact_bytes: int | None
    program_id: str | None
    parameters_id: str | None
    keys_id: str | None
    key_bytes: int | None
    created_at_ms: int
    ended_at_ms: int | None

    @classmethod
    def of(cls, row: VersionRow) -> VersionView:
        """The view of a row."""
        return cls(
            model=row.model_id,
            version=row.number,
            state=row.state,
            reason=row.reason,
            source_kind=row.source_kind,
            artefact_sha256=_hex(row.artefact_sha256),
            artefact_bytes=row.artefact_bytes,
            program_id=row.program_id,
            parameters_id=row.parameters_id,
            keys_id=keys_id(row),
            key_bytes=row.key_bytes,
            created_at_ms=row.created_at_ms,
            ended_at_ms=row.ended_at_ms,
        )


class ModelView(BaseModel):
    """An encrypted model. `version` is the newest that is ready, on which queries run; `latest` the newest of all."""

    id: str
    account: str
    name: str
    visibility: str
    weights_exposure: str
    settings: dict[str, Any]
    webhook_url: str | None
    version: int | None
    latest: VersionView | None
    created_at_ms: int

    @classmethod
    def of(cls, row: ModelRow, ready: VersionRow | None, latest: VersionRow | None) -> ModelView:
        """The view of a row."""
        return cls(
            id=row.id,
            account=row.account_id,
            name=row.name,
            visibility=row.visibility,
            weights_exposure=row.weights_exposure,
            settings=msgspec.json.decode(row.settings),
            webhook_url=row.webhook_url,
            version=None if ready is None else ready.number,
            latest=None if latest is None else VersionView.of(latest),
            created_at_ms=row.created_at_ms,
        )


class ModelWithSecretView(ModelView):
    """A model whose webhook was just set: `webhook_secret` cannot be had again."""

    webhook_secret: str | None = None


class NewVersionBody(Body):
    """`POST …/versions`: a complete upload, compiled already (`artefact`) or to be compiled (`onnx`)."""

    upload_id: UploadId
    kind: SourceKind
    calibration_upload_id: UploadId | None = None
    options: dict[Annotated[str, StringConstraints(max_length=50)], int | float | str | bool | None] = Field(
        default_factory=dict, max_length=20
    )


class VersionPage(BaseModel):
    """Versions, newest first; `next_cursor` is null on the last page."""

    data: list[VersionView]
    next_cursor: int | None


class NewTokenBody(Body):
    """`POST …/access-tokens`."""

    name: Name
    user: EndUser | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000, strict=True)] | None = None
    budget_micro: Micro | None = None
    expires_at_ms: Milliseconds | None = None


class AssignBody(Body):
    """`POST …/assign`."""

    user: EndUser


class TokenView(BaseModel):
    """An access token, without its secret. `user` is null while it is assigned to nobody."""

    id: str
    model: str
    user: str | None
    name: str
    prefix: str
    state: Literal["active", "revoked", "expired"]
    requests_per_minute: int | None
    budget_micro: int | None
    spent_micro: int
    queries: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    last_used_at_ms: int | None
    created_at_ms: int

    @classmethod
    def of(cls, row: TokenRecord, now_ms: int) -> TokenView:
        """The view of a record."""
        return cls(**token_members(row, now_ms))


class NewTokenView(TokenView):
    """A token that was just made. `secret` cannot be had again."""

    secret: str


class NewKeysBody(Body):
    """`POST /v1/evaluation-keys`: a complete upload of kind `evaluation_keys`, for a version or the current one."""

    upload_id: UploadId
    version: Annotated[int, Field(ge=1, strict=True)] | None = None


class KeysView(BaseModel):
    """A user's evaluation keys for a model. `current`: they fit the version that queries run on."""

    id: str
    model: str
    user: str
    parameters_id: str
    keys_id: str
    sha256: str
    bytes: int
    current: bool
    created_at_ms: int

    @classmethod
    def of(cls, row: KeysRow, wanted: Hash | None) -> KeysView:
        """The view of a row."""
        return cls(
            id=row.id,
            model=row.model_id,
            user=row.user,
            parameters_id=row.parameters_id,
            keys_id=f"ksp_{row.keys_hash.hex()}",
            sha256=row.blob_sha256.hex(),
            bytes=row.size,
            current=row.keys_hash == wanted,
            created_at_ms=row.created_at_ms,
        )


class KeysList(BaseModel):
    """A user's evaluation keys."""

    data: list[KeysView]


class TokenModelView(BaseModel):
    """What an access token may query, and which keys that needs (`client_sha256` names the part that lists them)."""

    model: str
    name: str
    version: int
    program_id: str
    parameters_id: str
    keys_id: str
    key_bytes: int
    client_sha256: str
    client_bytes: int
    artefact_sha256: str
    evaluation_keys: str | None
    token: TokenView


def keys_id(row: VersionRow) -> str | None:
    """`ksp_…` of a version."""
    return None if row.keys_hash is None else f"ksp_{row.keys_hash.hex()}"


def token_members(row: TokenRecord, now_ms: int) -> dict[str, Any]:
    """A record's public members."""
    members: dict[str, Any] = msgspec.structs.asdict(row)
    del members["account_id"]
    return members | {"model": members.pop("model_id"), "user": row.user or None, "state": row.state(now_ms)}


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
