"""What both query clients share: plans that find the model, make and register keys, ask, and check the receipt."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lattice.client.context import Context
from lattice.client.encrypted.key_folder import KeyFolder, Record, Wrapping
from lattice.client.encrypted.results import EncryptedQuery, EncryptedResult, Expected, timings_of, verified
from lattice.client.encrypted.uploads import BytesSource, FileSource, Memo, Progress, silent, upload
from lattice.client.exchange import Answer, Call, Pause, Plan, compute, query, read_all, send
from lattice.client.settings import path_segment
from lattice.core.errors import LatticeError
from lattice.core.worker_relay import BUNDLE_MEDIA_TYPE, RECEIPT_HEADER, VERSION_HEADER

if TYPE_CHECKING:
    from lattice.fhe.answers import Answer as ModelAnswer
    from lattice.fhe.artefact.client import ClientView
    from lattice.fhe.keys.secret import SecretKey

POLL_S = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between looks at a query that is still running; the last one repeats."""
MAX_VERSIONS = 8
"""Whose client parts are kept."""
MAX_REPLACED = 3
"""How often in a row a version may be replaced under a query."""
ENDED = {"failed", "cancelled", "expired"}


class ModelView(NamedTuple):
    """The model as an end user is told of it. `about` is the gateway's word, `view` the publisher's."""

    about: dict[str, Any]
    view: ClientView
    weights: str

    @property
    def version(self) -> int | None:
        """Its number."""
        number = self.about.get("version")
        return number if isinstance(number, int) else None


class Keys(NamedTuple):
    """Keys that are registered, and the secret that they belong to."""

    secret: SecretKey
    evaluation_keys: str
    keys_hash: str
    keys_id: str


class Session:
    """One end user at one model. Its state changes under `lock` only, and only to something complete."""

    def __init__(
        self,
        context: Context,
        folder: Path,
        passphrase: str | None,
        wrapping_key: bytes | None,
        trust: Collection[bytes] | None,
        worker_identities: Collection[str] | None,
    ) -> None:
        self.context, self.folder = context, folder
        self.wrapping = Wrapping(folder, passphrase, wrapping_key)
        self.trust = trust
        self.identities = None if worker_identities is None else frozenset(worker_identities)
        self.model: ModelView | None = None
        self.keys: Keys | None = None
        self.models: dict[int | None, ModelView] = {}
        self.rings: dict[str, Keys] = {}
        self.lock = threading.Lock()

    # --- the model ----------------------------------------------------------------------------------------

    def view(self, *, fresh: bool = False) -> Plan[ModelView]:
        """What the token may query; read once, and again when another version has taken its place."""
        if self.model is not None and not fresh:
            return self.model
        about = yield from self.context.get_json("/encrypted-model")
        self.model = yield from self._view_of(about)
        return self.model

    def version(self, number: int | None) -> Plan[ModelView]:
        """How one version is encrypted for and read; queries of several may be under way while one replaces another."""
        model = yield from self.view()
        if number is None or number == model.version:
            return model
        known = self.models.get(number)
        return known or (yield from self._view_of({**model.about, "version": number}))

    def _view_of(self, about: dict[str, Any]) -> Plan[ModelView]:
        data = yield from self._client_bytes(about.get("version"))
        model = yield from compute(lambda: self._read_view(about, data))
        self.models[model.version] = model
        while len(self.models) > MAX_VERSIONS:
            del self.models[next(iter(self.models))]
        return model

    def _client_bytes(self, version: int | None) -> Plan[bytes]:
        call = Call(
            "GET",
            f"{self.context.root}/encrypted-model/client",
            headers=self.context.headers,
            params=query((("version", version),)),
            replay_safe=True,
            stream=True,
            timeout_s=self.context.timeout_s,
        )
        answer = yield from send(call, self.context.policy)
        return (yield from read_all(answer))

    def _read_view(self, about: dict[str, Any], data: bytes) -> ModelView:
        """Every prime and the security bound are checked again while the parameters are read."""
        from lattice.fhe import artefact

        view = artefact.client_view(data, trust=self.trust)
        return ModelView(about, view, artefact.inspect(data).weights_hash)

    # --- keys ---------------------------------------------------------------------------------------------

    def ensure(self, progress: Progress = silent, *, replace: bool = False) -> Plan[Keys]:
        """Keys that the gateway has and whose secret is here: found, or made, stored and uploaded."""
        model = yield from self.view()
        self.keys = yield from self._keys(model, progress, replace=replace)
        return self.keys

    def _keys(self, model: ModelView, progress: Progress = silent, *, replace: bool = False) -> Plan[Keys]:
        """Those for one version; versions that differ in weights alone share them."""
        held_keys = self.rings.get(model.view.keys_id)
        if held_keys is not None and not replace:
            return held_keys
        folder = self._folder(model)
        held = yield from compute(folder.lock)
        try:
            record = None if replace else folder.record()
            secret = None if replace else (yield from compute(folder.secret))
            if secret is None or record is None or not (yield from self._registered(record)):
                secret, record = yield from self._register(model, folder, secret, progress)
            assert record.evaluation_keys is not None and record.keys_hash is not None  # noqa: PT018
            keys = Keys(secret, record.evaluation_keys, record.keys_hash, record.keys_id)
            self.rings[model.view.keys_id] = keys
            return keys
        finally:
            folder.unlock(held)

    def _folder(self, model: ModelView) -> KeyFolder:
        about = model.about
        held_by = about.get("token")
        line, user = str(about.get("model")), str(held_by.get("user") if isinstance(held_by, dict) else "")
        return KeyFolder(self.folder, self.context.origin, line, user, model.view.keys_id, self.wrapping)

    def _registered(self, record: Record) -> Plan[bool]:
        if record.evaluation_keys is None or record.keys_hash is None:
            return False
        answer = yield from self.context.get_json("/evaluation-keys")
        return any(item.get("id") == record.evaluation_keys for item in answer.get("data", []))

    def _register(
        self, model: ModelView, folder: KeyFolder, secret: SecretKey | None, progress: Progress
    ) -> Plan[tuple[SecretKey, Record]]:
        if secret is None or not folder.bundle.exists():
            old = secret
            secret = yield from compute(lambda: make_keys(model.view, folder, old, progress))
        source, memo = FileSource(folder.bundle), Memo(self.folder / "uploads")
        sha256 = yield from compute(source.sha256)
        identity = yield from upload(self.context, "evaluation_keys", source, memo, progress, "upload keys")
        body: dict[str, Any] = {"upload_id": identity}
        if model.version is not None:
            body["version"] = model.version
        key = self.context.new_key()
        made = yield from self.context.post_json("/evaluation-keys", body, idempotency_key=key, replay_safe=True)
        record = Record(model.view.keys_id, secret.key_id, str(made["id"]), sha256)
        folder.write_record(record)
        folder.drop_bundle()
        return secret, record

    # --- queries ------------------------------------------------------------------------------------------

    def encrypt(self, samples: Any, *, strict: bool = False) -> Plan[EncryptedQuery]:
        """One query of at most the model's batch."""
        model = yield from self.view()
        keys = yield from self._keys(model)
        return (yield from compute(lambda: encrypted(model, keys.secret, samples, strict)))

    def ask(self, samples: Any, *, strict: bool = False, verify: int = 1, database: str | None = None) -> Plan[Any]:
        """Encrypt, send, check and decrypt one batch; again where another version has replaced the one encrypted for.

        Nobody can evaluate ciphertexts for a version that is gone, so this is what makes a redeployment unseen.
        """
        for left in range(MAX_REPLACED, -1, -1):
            asked = yield from self.encrypt(samples, strict=strict)
            try:
                result = yield from self.execute(asked, verify=verify, database=database)
            except LatticeError as error:
                if error.code != "version_replaced" or not left:
                    raise
                if self.model is None or self.model.version == asked.version:
                    yield from self.view(fresh=True)
                yield from self.ensure()
            else:
                return (yield from self.decrypt(result))
        raise AssertionError("unreachable")

    def execute(
        self,
        asked: EncryptedQuery,
        *,
        verify: int = 1,
        database: str | None = None,
        idempotency_key: str | None = None,
        wait: bool = True,
        timeout_s: float | None = None,
    ) -> Plan[EncryptedResult]:
        """Send ciphertexts and wait for the results, which are checked against their receipt."""
        model = yield from self.version(asked.version)
        keys = yield from self._keys(model)
        answer = yield from self.submit(
            asked, keys, verify=verify, database=database, idempotency_key=idempotency_key, wait=wait,
            timeout_s=timeout_s,
        )  # fmt: skip
        if answer.status == 202:
            answer = yield from self.wait_for(str(answer.json()["id"]))
        return (yield from self._checked(answer, asked, keys))

    def submit(
        self,
        asked: EncryptedQuery,
        keys: Keys,
        *,
        verify: int,
        database: str | None,
        idempotency_key: str | None,
        wait: bool,
        timeout_s: float | None = None,
    ) -> Plan[Answer]:
        """The POST alone. The idempotency key makes a repeat of it safe: a query runs and costs once."""
        parameters = query(
            (
                ("evaluation_keys", keys.evaluation_keys),
                ("wait", int(wait)),
                ("verify", None if verify == 1 else verify),
                ("database", database),
                ("version", asked.version),
            )
        )
        headers = {
            **self.context.headers,
            "content-type": BUNDLE_MEDIA_TYPE,
            "idempotency-key": idempotency_key or self.context.new_key(),
        }
        call = Call(
            "POST", f"{self.context.root}/encrypted-queries", asked.data, headers, parameters, replay_safe=True,
            timeout_s=timeout_s or self.context.timeout_s,
        )  # fmt: skip
        return (yield from send(call, self.context.policy))

    def wait_for(self, identity: str) -> Plan[Answer]:
        """Look until the query has ended, then fetch its result."""
        path = f"/encrypted-queries/{path_segment(identity)}"
        for pause in _pauses():
            found = yield from self.context.get_json(path)
            if found.get("state") == "completed":
                break
            if found.get("state") in ENDED:
                raise _ended(found)
            yield Pause(pause)
        call = Call("GET", f"{self.context.root}{path}/result", headers=self.context.headers, replay_safe=True)
        return (yield from send(call, self.context.policy))

    def _checked(self, answer: Answer, asked: EncryptedQuery, keys: Keys) -> Plan[EncryptedResult]:
        text, said = answer.headers.get(RECEIPT_HEADER), answer.headers.get(VERSION_HEADER, "")
        wanted = yield from self.version(asked.version)
        model = (yield from self.version(int(said))) if said.isdecimal() else wanted
        if model.view.interface != wanted.view.interface:
            raise LatticeError("receipt_invalid", "The answer is of a version that reads the question differently.")
        receipt = verified(text, answer.content, self._expected(model, asked, keys))
        timings = timings_of(answer.headers.get("server-timing"))
        return EncryptedResult(answer.content, asked.count, receipt.query, receipt, timings, model.version)

    def _expected(self, model: ModelView, asked: EncryptedQuery, keys: Keys) -> Expected:
        return Expected(model.view, model.weights, keys.keys_hash, asked.sha256, self.identities)

    def decrypt(self, result: EncryptedResult) -> Plan[ModelAnswer]:
        """The answer in the clear, which only this client's secret can make."""
        model = yield from self.version(result.version)
        keys = yield from self._keys(model)
        return (yield from compute(lambda: decrypted(model.view, keys.secret, result)))

    def forget_keys(self) -> None:
        """They were deleted at the gateway; the secrets stay on disk."""
        self.keys = None
        self.rings.clear()

    def close(self) -> None:
        """Wipe the secrets from memory."""
        for keys in self.rings.values():
            keys.secret.wipe()
        self.forget_keys()

    def upload_database(self, rows: Any, progress: Progress = silent) -> Plan[str]:
        """Encrypt rows for a search, upload them once; the id to query with."""
        model = yield from self.view()
        keys = yield from self.ensure()
        data = yield from compute(lambda: encrypted_rows(model.view, keys.secret, rows))
        memo = Memo(self.folder / "uploads")
        identity = yield from upload(self.context, "database", BytesSource(data), memo, progress, "upload rows")
        body = {"upload_id": identity}
        key = self.context.new_key()
        made = yield from self.context.post_json("/encrypted-databases", body, idempotency_key=key, replay_safe=True)
        return str(made["id"])


def make_keys(view: ClientView, folder: KeyFolder, secret: SecretKey | None, progress: Progress) -> SecretKey:
    """A secret (unless one is there), stored before anything else, and the keys that the model needs."""
    from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet
    from lattice.fhe.keys.evaluation import KeyGenerator
    from lattice.fhe.serialise.bundle import write_bundle
    from lattice.fhe.serialise.keys import encode_evaluation_keys, encode_public_key

    generator = KeyGenerator(view.params)
    if secret is None:
        secret = generator.secret_key()
        folder.write_record(Record(view.keys_id, secret.key_id))
        folder.write_secret(secret)
    made = []
    progress("make keys", 0, len(view.keys))
    for number, spec in enumerate(view.keys, 1):
        made.append(generator.evaluation_key(secret, spec))
        progress("make keys", number, len(view.keys))
    keys = EvaluationKeySet(view.params, made)
    public = encode_public_key(generator.public_key(secret), view.params)
    folder.write_bundle(write_bundle([public, encode_evaluation_keys(keys)]))
    return secret


def encrypted(model: ModelView, secret: SecretKey, samples: Any, strict: bool) -> EncryptedQuery:
    """A bundle of seeded ciphertexts."""
    from lattice.fhe.answers import checked_samples
    from lattice.fhe.client_side import encrypt
    from lattice.fhe.serialise.bundle import write_bundle
    from lattice.fhe.serialise.ciphertexts import encode_ciphertext

    view = model.view
    array = checked_samples(view.client, samples, strict=strict)
    made = encrypt(view.client, view.params, secret, array, strict=strict)
    data = write_bundle([encode_ciphertext(each, view.params) for each in made])
    return EncryptedQuery(data, len(array), model.version)


def encrypted_rows(view: ClientView, secret: SecretKey, rows: Any) -> bytes:
    """A bundle of the rows' ciphertexts."""
    from lattice.fhe.client_side import encrypt
    from lattice.fhe.serialise.bundle import write_bundle
    from lattice.fhe.serialise.ciphertexts import encode_ciphertext

    if view.database is None:
        raise LatticeError("invalid_request", "The model does not search in a database of the user's.")
    made = encrypt(view.database, view.params, secret, rows)
    return write_bundle([encode_ciphertext(each, view.params) for each in made])


def decrypted(view: ClientView, secret: SecretKey, result: EncryptedResult) -> ModelAnswer:
    """Values and labels of the samples that were asked about."""
    from lattice.fhe.client_side import decrypt
    from lattice.fhe.serialise.bundle import read_bundle
    from lattice.fhe.serialise.ciphertexts import decode_ciphertext

    objects = read_bundle(result.data, at_most=len(view.client.outputs))
    if len(objects) != len(view.client.outputs):
        raise LatticeError("reply_invalid", "The answer has another number of ciphertexts than the model gives.")
    found = [decode_ciphertext(each, view.params) for each in objects]
    for ciphertext, packed in zip(found, view.client.outputs, strict=True):
        if (ciphertext.level, ciphertext.encoding) != (packed.level, packed.encoding):
            raise LatticeError("reply_invalid", "A ciphertext of the answer has another level or encoding.")
    return decrypt(view.client, view.params, secret, found, result.count)


def batches(view: ClientView, samples: Any, strict: bool) -> list[Any]:
    """The samples in queries of at most the model's batch."""
    from lattice.fhe.answers import checked_samples

    array = checked_samples(view.client, samples, strict=strict)
    return [array[start : start + view.client.batch] for start in range(0, len(array), view.client.batch)]


def joined(answers: list[ModelAnswer]) -> ModelAnswer:
    """The answers of several queries as one."""
    from lattice.fhe.answers import joined as join

    return join(answers)


def _pauses() -> Iterator[float]:
    yield from POLL_S
    while True:
        yield POLL_S[-1]


def _ended(found: dict[str, Any]) -> LatticeError:
    """Why a query ended without an answer."""
    from lattice.core.errors import catalogue

    code = str(found.get("reason") or "")
    fallback = {"cancelled": "work_cancelled", "expired": "query_expired"}.get(
        str(found.get("state")), "runtime_failed"
    )
    known = code if code in catalogue() else fallback
    return LatticeError(known, f"The query {found.get('id')} ended as {found.get('state')} ({code or 'no reason'}).")
