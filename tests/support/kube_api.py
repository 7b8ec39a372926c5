"""A Kubernetes API server for tests: pods and their secrets, as the real one treats them, without a cluster behind it.

Bodies are held against the real API schema, callers against the rules of a real Role. Watches begin at a resource
version, end with 410 where it is forgotten, and send bookmarks to whoever asks. What runs pods is
`tests.support.kubelet`, which works the same on a real server.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from kubernetes_validate import ValidationError

from tests.support.kube_schema import require_valid

NAMESPACE = "lattice"
GATEWAY_TOKEN, ADMIN_TOKEN = "token-of-the-gateway", "token-of-the-cluster"
PLURALS = {"Pod": "pods", "Secret": "secrets"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

Object = dict[str, Any]


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str = "") -> None:
        super().__init__(message)
        self.status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


class KubeApi:
    """One namespace's objects, their history, and who may do what."""

    def __init__(self, rules: list[Object]) -> None:
        self.rules = rules
        self.objects: dict[tuple[str, str], Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []
        self.version = 100
        self.forgotten = 100
        self.requests: list[tuple[str, str]] = []
        """Verb and resource of every call of the gateway's account."""
        self.bodies: list[str] = []
        """What anybody sent, but secrets."""
        self.failing: dict[tuple[str, str], tuple[int, str]] = {}
        """Verb and resource that fail, with which code and reason."""
        self.mute = False
        """Watches hang: nothing more is sent on them."""
        self.garbled: web.Response | None = None
        """What the gateway gets instead of every answer."""
        self.url = ""
        self._news = asyncio.Condition()
        self._watches: set[asyncio.Task[None]] = set()

    # --- what a test does ----------------------------------------------------------------------------------

    def all(self, plural: str) -> list[Object]:
        """The objects of a kind."""
        return [each for (kind, _), each in self.objects.items() if kind == plural]

    async def forget(self) -> None:
        """Compact the history: every watch ends, and none can begin before now."""
        self.forgotten = self.version
        self.history.clear()
        await self._tell()

    def cut(self) -> None:
        """Break every open watch, as a lost connection does."""
        for task in self._watches:
            task.cancel()

    def kubeconfig(self, folder: Path, token: str = GATEWAY_TOKEN) -> Path:
        """A file with which this server is reached."""
        path = folder / f"kubeconfig-{token}"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "u", "namespace": NAMESPACE}}],
                    "clusters": [{"name": "test", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {"token": token}}],
                }
            )
        )
        return path

    # --- requests ------------------------------------------------------------------------------------------

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self._answering])
        base = "/api/v1/namespaces/{namespace}/{plural}"
        app.router.add_route("*", base, self._collection)
        app.router.add_route("*", base + "/{name}", self._single)
        app.router.add_route("*", base + "/{name}/{sub}", self._part)
        return app

    @web.middleware
    async def _answering(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.garbled is not None and _token(request) == GATEWAY_TOKEN:
            self.requests.append(("garbled", ""))
            return web.Response(body=self.garbled.body, status=self.garbled.status, headers=self.garbled.headers)
        try:
            return await handler(request)  # type: ignore[no-any-return]
        except Refused as refused:
            return _json(refused.status, refused.status["code"])

    def _admit(self, request: web.Request, verb: str, sub: str = "") -> str:
        plural = request.match_info["plural"] + (f"/{sub}" if sub else "")
        token = _token(request)
        if token not in (GATEWAY_TOKEN, ADMIN_TOKEN):
            raise Refused(401, "Unauthorized")
        if token == GATEWAY_TOKEN:
            self.requests.append((verb, plural))
            fails = self.failing.get((verb, plural))
            if fails is not None:
                raise Refused(*fails, "made to fail")
        allowed = any(verb in rule["verbs"] and plural in rule["resources"] for rule in self.rules)
        if request.match_info["namespace"] != NAMESPACE or (token == GATEWAY_TOKEN and not allowed):
            raise Refused(403, "Forbidden", f"cannot {verb} resource {plural}")
        return plural

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            plural = self._admit(request, "create")
            return _json(await self._create(plural, await self._body(request, plural)), 201)
        if request.query.get("watch") in ("true", "1"):
            return await self._watch(request, self._admit(request, "watch"))
        plural = self._admit(request, "list")
        found = [each for each in self.all(plural) if _matches(each, request.query.get("labelSelector"))]
        kind = next(kind for kind, name in PLURALS.items() if name == plural)
        meta = {"resourceVersion": str(self.version)}
        return _json({"kind": f"{kind}List", "apiVersion": "v1", "metadata": meta, "items": found})

    async def _single(self, request: web.Request) -> web.StreamResponse:
        verb = {"GET": "get", "DELETE": "delete"}[request.method]
        plural, name = self._admit(request, verb), request.match_info["name"]
        if verb == "get":
            return _json(self._find(plural, name))
        given = request.query.get("gracePeriodSeconds")
        await self._delete(plural, name, None if given is None else int(given))
        return _json(_SUCCESS)

    async def _part(self, request: web.Request) -> web.StreamResponse:
        """What a scheduler and a kubelet do: bind a pod to a node, and say how it is."""
        sub, name = request.match_info["sub"], request.match_info["name"]
        plural = self._admit(request, "create" if sub == "binding" else "patch", sub).partition("/")[0]
        changed = copy.deepcopy(self._find(plural, name))
        body = await request.json()
        if sub == "binding":
            require_valid(body)
            changed["spec"]["nodeName"] = body["target"]["name"]
        else:
            changed["status"] = _merged(changed["status"], body["status"])
        require_valid(changed)
        await self._put("MODIFIED", plural, changed)
        if sub == "binding":
            return _json(_SUCCESS, 201)
        return _json(changed)

    async def _body(self, request: web.Request, plural: str) -> Object:
        text = await request.text()
        body: Object = json.loads(text)
        if PLURALS.get(body.get("kind", "")) != plural:
            raise Refused(400, "BadRequest", "another kind was expected")
        if plural != "secrets":
            self.bodies.append(text)
        try:
            require_valid(body)
        except ValidationError as error:
            raise Refused(400, "BadRequest", f"strict decoding error: {error.message[:200]}") from None
        labels = body["metadata"].get("labels", {}).values()
        if not _NAME.fullmatch(body["metadata"]["name"]) or not all(map(_LABEL.fullmatch, labels)):
            raise Refused(422, "Invalid", "a name or a label is not valid")
        return body

    # --- objects -------------------------------------------------------------------------------------------

    def _find(self, plural: str, name: str) -> Object:
        found = self.objects.get((plural, name))
        if found is None:
            raise Refused(404, "NotFound", f"{plural} {name} not found")
        return found

    async def _create(self, plural: str, body: Object) -> Object:
        meta = body["metadata"]
        if (plural, meta["name"]) in self.objects:
            raise Refused(409, "AlreadyExists", f"{plural} {meta['name']} already exists")
        meta |= {"namespace": NAMESPACE, "uid": str(uuid.uuid4()), "creationTimestamp": _now()}
        if plural == "pods":
            body["status"] = {"phase": "Pending"}
        for key, value in body.pop("stringData", {}).items():
            body.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
        await self._put("ADDED", plural, body)
        self._collect_garbage()
        return body

    async def _delete(self, plural: str, name: str, grace: int | None) -> None:
        """A pod on a node that has not ended is only marked: its kubelet ends it and deletes it without grace."""
        found = copy.deepcopy(self._find(plural, name))
        running = plural == "pods" and found["spec"].get("nodeName") and found["status"]["phase"] in _OPEN
        seconds = (
            found["spec"].get("terminationGracePeriodSeconds", 30) if plural == "pods" and grace is None else grace
        )
        if running and seconds:
            if "deletionTimestamp" not in found["metadata"]:
                found["metadata"] |= {"deletionTimestamp": _now(), "deletionGracePeriodSeconds": seconds}
                await self._put("MODIFIED", plural, found)
            return
        del self.objects[plural, name]
        await self._record("DELETED", plural, found)
        self._collect_garbage()

    def _collect_garbage(self) -> None:
        """What is owned by something that is gone goes too."""
        there = {each["metadata"]["uid"] for each in self.objects.values()}
        for (plural, name), each in list(self.objects.items()):
            owners = each["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in there for owner in owners):
                del self.objects[plural, name]

    async def _put(self, kind: str, plural: str, changed: Object) -> None:
        self.objects[plural, changed["metadata"]["name"]] = changed
        await self._record(kind, plural, changed)

    async def _record(self, kind: str, plural: str, changed: Object) -> None:
        self.version += 1
        changed["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, kind, plural, copy.deepcopy(changed)))
        await self._tell()

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    # --- watches -------------------------------------------------------------------------------------------

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        task = asyncio.ensure_future(self._follow(request, response, plural))
        self._watches.add(task)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._watches.discard(task)
        if task.cancelled() and request.transport is not None:
            request.transport.abort()
        return response

    async def _follow(self, request: web.Request, response: web.StreamResponse, plural: str) -> None:
        query = request.query
        at = int(query["resourceVersion"])

        async def send(kind: str, given: Object) -> None:
            if not self.mute:
                await response.write(json.dumps({"type": kind, "object": given}).encode() + b"\n")

        try:
            async with asyncio.timeout(float(query.get("timeoutSeconds", 1800))):
                while True:
                    if at < self.forgotten:
                        return await send("ERROR", Refused(410, "Expired", "too old resource version").status)
                    news = [each for each in self.history if each[0] > at]
                    for at, kind, of, given in news:  # noqa: B007
                        if of == plural and _matches(given, query.get("labelSelector")):
                            await send(kind, given)
                    async with self._news:
                        await self._news.wait_for(lambda at=at: self.version > at or self.forgotten > at)
        except TimeoutError:
            if query.get("allowWatchBookmarks") == "true":
                marked = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}}
                await send("BOOKMARK", marked)


_OPEN = ("Pending", "Running")
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


@asynccontextmanager
async def kube_api(rules: list[Object]) -> AsyncIterator[KubeApi]:
    """Serve one on a loopback port."""
    api = KubeApi(rules)
    runner = web.AppRunner(api.app(), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        api.cut()
        await runner.cleanup()


def _token(request: web.Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _json(given: Object, status: int = 200) -> web.Response:
    """Without a charset, as the real one answers."""
    return web.Response(body=json.dumps(given).encode(), status=status, content_type="application/json")


def _matches(given: Object, selector: str | None) -> bool:
    wanted = dict(each.split("=", 1) for each in selector.split(",")) if selector else {}
    labels = given["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in wanted.items())


def _merged(old: Any, new: Any) -> Any:
    """RFC 7386."""
    if not isinstance(new, dict):
        return new
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
