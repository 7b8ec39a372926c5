"""What a provider of encrypted models does: upload and compile, hand out tokens, run workers, watch the money."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from lattice.client import account
from lattice.client.context import Context
from lattice.client.drivers import Driver
from lattice.client.encrypted.uploads import FileSource, Memo, Progress, silent, upload
from lattice.client.exchange import Call, Close, Plan, read, send
from lattice.client.settings import default_store_dir, path_segment
from lattice.client.sse import SseReader
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, is_id

T = TypeVar("T")

Rows = list[dict[str, Any]]
SourceKind = Literal["artefact", "onnx"]
LOOK_S = 0.25
START_TIMEOUT_S = 120.0
READY_TIMEOUT_S = 1800.0
STOP_TIMEOUT_S = 15.0
ENDED = {"stopped"}


def model_id(context: Context, name: str) -> Plan[str]:
    """The id of a model that is called by its id or by its name."""
    if is_id(Prefix.MODEL, name):
        return name
    page = yield from account.page(context, "/encrypted-models", None, 2, {"name": name})
    for item in page.data:
        if item.get("name") == name:
            return str(item["id"])
    raise LatticeError("not_found", f"The account has no encrypted model called {name!r}.")


def create(context: Context, path: str, body: dict[str, Any]) -> Plan[dict[str, Any]]:
    """POST something that is made once, however often it is sent."""
    sent = {name: value for name, value in body.items() if value is not None}
    return (yield from context.post_json(path, sent, idempotency_key=context.new_key(), replay_safe=True))


def upload_version(
    context: Context,
    model: str,
    path: Path,
    kind: SourceKind,
    calibration: Path | None,
    options: dict[str, Any] | None,
    progress: Progress,
) -> Plan[dict[str, Any]]:
    """Upload the file (and its calibration samples), and make a version of it."""
    identity = yield from model_id(context, model)
    memo = Memo(default_store_dir() / "uploads")
    samples = None
    if calibration is not None:
        samples = yield from upload(context, "calibration", FileSource(calibration), memo, progress, "calibration")
    source = yield from upload(context, "model", FileSource(path), memo, progress, "model")
    body = {"upload_id": source, "kind": kind, "calibration_upload_id": samples, "options": options}
    return (yield from create(context, f"/encrypted-models/{identity}/versions", body))


class Tokens:
    """`client.tokens`: access tokens of a model, one for each end user."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def create(self, model: str, name: str, **options: Any) -> dict[str, Any]:
        """Make one; its `secret` is in this answer only, and without a `user` it opens nothing before `assign`.

        Options: `user`, `expires_at_ms`, `requests_per_minute`, `budget_micro`.
        """
        return self._provider._run(create(self._context, self._path(model), {"name": name, **options}))

    def list(self, model: str, *, limit: int = 100) -> Iterator[dict[str, Any]]:
        """Every token of the model with its use, without secrets."""
        return self._provider._every(self._path(model), limit)

    def assign(self, model: str, token: str, user: str) -> dict[str, Any]:
        """Say which end user holds it."""
        return self._provider._run(create(self._context, f"{self._path(model, token)}/assign", {"user": user}))

    def unassign(self, model: str, token: str) -> dict[str, Any]:
        """Take it from its user; keys and tokens of others stay."""
        return self._provider._run(create(self._context, f"{self._path(model, token)}/unassign", {}))

    def revoke(self, model: str, token: str) -> dict[str, Any]:
        """Revoke it for good, within a second."""
        return self._provider._run(self._context.delete(self._path(model, token)))

    @property
    def _context(self) -> Context:
        return self._provider._context

    def _path(self, model: str, token: str | None = None) -> str:
        path = f"/encrypted-models/{self._provider.encrypted_model_id(model)}/access-tokens"
        return path if token is None else f"{path}/{path_segment(token)}"


class Workers:
    """`client.workers`: machines that evaluate a model. While one is active its time is paid for."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def start(self, model: str, *, hardware_class: str | None = None, count: int = 1) -> Rows:
        """Start workers; they become `active` once the program is loaded."""
        path = f"/encrypted-models/{self._provider.encrypted_model_id(model)}/workers"
        body = {"hardware_class": hardware_class, "count": count}
        made = self._provider._run(create(self._context, path, body))
        found = made.get("data")
        return found if isinstance(found, list) else [made]

    def list(self, model: str | None = None, *, limit: int = 100) -> Iterator[dict[str, Any]]:
        """Workers of a model, or of the account."""
        if model is None:
            return self._provider._every("/workers", limit)
        return self._provider._every(f"/encrypted-models/{self._provider.encrypted_model_id(model)}/workers", limit)

    def get(self, worker: str) -> dict[str, Any]:
        """One."""
        return self._provider._run(self._context.get_json(f"/workers/{path_segment(worker)}"))

    def stop(self, worker: str) -> dict[str, Any]:
        """Stop one: it finishes what it has, for up to five seconds."""
        return self._provider._run(self._context.delete(f"/workers/{path_segment(worker)}"))

    def sessions(self, *, limit: int = 100) -> Iterator[dict[str, Any]]:
        """What ran, for how long, and what it cost."""
        return self._provider._every("/worker-sessions", limit)

    def wait_active(self, worker: str, *, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Return when it evaluates; raises `worker_stopped` with the reason when it ends instead."""
        return self._wait(worker, {"active"}, timeout_s)

    def wait_stopped(self, worker: str, *, timeout_s: float = STOP_TIMEOUT_S) -> dict[str, Any]:
        """Return when its time is no longer billed."""
        return self._wait(worker, ENDED, timeout_s)

    @contextmanager
    def running(
        self,
        model: str,
        *,
        hardware_class: str | None = None,
        count: int = 1,
        timeout_s: float = START_TIMEOUT_S,
    ) -> Iterator[Rows]:
        """Workers that are active inside of the block and stopped after it, whatever happens in it."""
        started = self.start(model, hardware_class=hardware_class, count=count)
        try:
            yield [self.wait_active(str(worker["id"]), timeout_s=timeout_s) for worker in started]
        finally:
            for worker in started:
                with suppress(LatticeError):
                    self.stop(str(worker["id"]))
            for worker in started:
                with suppress(LatticeError):
                    self.wait_stopped(str(worker["id"]))

    @property
    def _context(self) -> Context:
        return self._provider._context

    def _wait(self, worker: str, states: set[str], timeout_s: float) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while True:
            found = self.get(worker)
            if found.get("state") in states:
                return found
            if found.get("state") in ENDED:
                raise LatticeError("worker_stopped", f"The worker {worker} ended: {found.get('reason')}.")
            if time.monotonic() > end:
                raise LatticeError("worker_unavailable", f"The worker {worker} is {found.get('state')} still.")
            time.sleep(LOOK_S)


class Provider:
    """The part of `ManagementClient` that is about encrypted models. A model is named by its id or by its name."""

    _context: Context
    _driver: Driver

    @property
    def tokens(self) -> Tokens:
        """Access tokens for end users."""
        return Tokens(self)

    @property
    def workers(self) -> Workers:
        """Machines that evaluate."""
        return Workers(self)

    def encrypted_model_id(self, model: str) -> str:
        """The id of a model that is given by its id or its name."""
        return self._run(model_id(self._context, model))

    def create_encrypted_model(self, name: str, **options: Any) -> dict[str, Any]:
        """Make a model without a version.

        Options: `visibility` (private, public), `weights_exposure` (own, hosted, marketplace), `settings`,
        `webhook_url`.
        """
        return self._run(create(self._context, "/encrypted-models", {"name": name, **options}))

    def list_encrypted_models(self, *, limit: int = 100) -> Iterator[dict[str, Any]]:
        """The account's encrypted models."""
        return self._every("/encrypted-models", limit)

    def encrypted_model(self, model: str) -> dict[str, Any]:
        """One."""
        return self._run(self._context.get_json(self._model_path(model)))

    def update_encrypted_model(self, model: str, **changes: Any) -> dict[str, Any]:
        """Change what `create_encrypted_model` set."""
        headers = {**self._context.headers, "content-type": "application/json"}
        url = self._context.root + self._model_path(model)
        call = Call("PATCH", url, msgspec.json.encode(changes), headers, replay_safe=True)
        return self._run(send(call, self._context.policy)).json()

    def delete_encrypted_model(self, model: str) -> dict[str, Any]:
        """Delete it with its versions, tokens and keys; its workers stop."""
        return self._run(self._context.delete(self._model_path(model)))

    def upload_model(
        self,
        model: str,
        path: Path | str,
        *,
        kind: SourceKind | None = None,
        calibration: Path | str | None = None,
        options: dict[str, Any] | None = None,
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Upload a compiled artefact, or an ONNX file with calibration samples to compile there: a new version.

        An upload that was interrupted goes on where it stopped when it is called again.
        """
        file = Path(path)
        chosen: SourceKind = kind or ("onnx" if file.suffix == ".onnx" else "artefact")
        samples = None if calibration is None else Path(calibration)
        return self._run(upload_version(self._context, model, file, chosen, samples, options, progress))

    def model_versions(self, model: str, *, limit: int = 100) -> Iterator[dict[str, Any]]:
        """Newest first."""
        return self._every(f"{self._model_path(model)}/versions", limit)

    def model_version(self, model: str, number: int) -> dict[str, Any]:
        """One, with its state and, where it failed, the reason."""
        return self._run(self._context.get_json(f"{self._model_path(model)}/versions/{number:d}"))

    def model_report(self, model: str, number: int) -> dict[str, Any]:
        """What the compiler says about a version."""
        return self._run(self._context.get_json(f"{self._model_path(model)}/versions/{number:d}/report"))

    def wait_ready(self, model: str, number: int, *, timeout_s: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """Return when a version can be queried; raises `compilation_failed` with the reason where it cannot."""
        identity, end = self.encrypted_model_id(model), time.monotonic() + timeout_s
        while True:
            found = self.model_version(identity, number)
            if found.get("state") == "ready":
                return found
            if found.get("state") == "failed":
                raise LatticeError("compilation_failed", f"Version {number} failed: {found.get('reason')}.")
            if time.monotonic() > end:
                raise LatticeError("model_not_ready", f"Version {number} is {found.get('state')} still.")
            time.sleep(LOOK_S)

    def model_events(self, model: str, *, after: str | None = None) -> Iterator[dict[str, Any]]:
        """What happened to a model behind the event `after`, then what happens, until the caller stops iterating."""
        return self._events(f"{self._model_path(model)}/events", after)

    def account_events(self, *, after: str | None = None) -> Iterator[dict[str, Any]]:
        """What happened to the account's models, workers and credits behind the event `after`, then what happens.

        Each event has an `id`, by which another call goes on; what a key hears of depends on its scopes.
        """
        return self._events("/account/events", after)

    def _events(self, path: str, after: str | None) -> Iterator[dict[str, Any]]:
        headers = {**self._context.headers, "accept": "text/event-stream"}
        if after is not None:
            headers["last-event-id"] = after
        call = Call("GET", self._context.root + path, headers=headers, stream=True)
        answer = self._run(send(call, self._context.policy))
        reader = SseReader()
        try:
            while chunk := self._run(read(answer)):
                for event in reader.feed(chunk):
                    yield msgspec.json.decode(event, type=dict[str, Any])
        finally:
            self._run(_closed(Close(answer)))

    def hardware_classes(self) -> list[dict[str, Any]]:
        """Kinds of machines with their price per second."""
        return list(self._run(self._context.get_json("/hardware-classes")).get("data", []))

    def set_hardware_class(self, name: str, **settings: Any) -> dict[str, Any]:
        """Add a kind of machine or change its price; needs `lattice:admin`."""
        return self._run(self._context.put_json(f"/hardware-classes/{path_segment(name)}", settings))

    def credits_statement(self) -> dict[str, Any]:
        """Balance, what running workers hold and cost, and how long the balance lasts at the present rate."""
        return self._run(self._context.get_json("/credits/statement"))

    def top_up(self, amount_micro: int, **options: Any) -> dict[str, Any]:
        """Begin to add credits, in the way that the gateway's operator has set up."""
        return self._run(create(self._context, "/credits/top-ups", {"amount_micro": amount_micro, **options}))

    def transactions(self, *, limit: int = 100) -> Iterator[dict[str, Any]]:
        """Every posting on the account's credits, newest first."""
        return self._every("/ledger/entries", limit)

    def _model_path(self, model: str) -> str:
        return f"/encrypted-models/{self.encrypted_model_id(model)}"

    def _run(self, plan: Plan[T]) -> T:
        return self._driver.run(plan)

    def _every(self, path: str, limit: int, **filters: str | None) -> Iterator[dict[str, Any]]:
        raise AssertionError("ComputeClient has it")


def _closed(close: Close) -> Plan[None]:
    yield close
