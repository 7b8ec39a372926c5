"""The documentation is true: pages are current, links lead somewhere, commands and settings exist, snippets run."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import structlog
from scripts.generate_docs import stale, written_pages
from scripts.pages.snippets import named

from lattice.client.aio import AsyncComputeClient
from lattice.core.relay import ModelOffer
from lattice.runtime.daemon import Daemon
from lattice.runtime.engines.base import EngineReply
from lattice.runtime.pairing import redeem
from lattice.runtime.settings import DaemonSettings, LocalApiSettings
from lattice.runtime.settings_file import load_settings
from lattice.runtime.state import StateDir
from tests.harness import LiveGateway, ScriptedRuntime, running_gateway, whole_answer
from tests.support import docs

SNIPPETS = docs.DOCS / "snippets"
EXAMPLES = docs.ROOT / "examples"
HOSTED = "lattice:smollm2-135m-instruct"

PRINTS = {
    "openai_plain.py": ["four"],
    "openai_sealed.py": ["four"],
    "openai_receipt.py": ["four", "end_to_end receipt verified: True"],
    "openai_stream.py": ["four"],
    "openai_provenance.py": ["x-lattice-sealing gateway", "x-lattice-work work_"],
    "openai_errors.py": ["NotFoundError model_not_found req_"],
    "openai_async_sealed.py": ["four"],
    "demand_a_mode.py": ["sealing_mode_unavailable"],
    "sdk_chat.py": ["four", "end_to_end", "receipt verified: True"],
    "sdk_stream.py": ["four", "receipt verified: True"],
    "sdk_errors.py": ["model_not_found req_", "GET /v1/models"],
    "pair_confirm.py": ["verified"],
    "hosted_chat.py": ["four"],
    "money.py": ["available 999", "smollm2-135m-instruct 12 3 2", "all postings together: 0"],
    "limited_key.py": ["notebook ['lattice:compute:inference'] 2500000 0"],
    "retry_safely.py": ["four (replayed: False)", "four (replayed: True)"],
}
"""The snippets that talk to a gateway, and what each must print. The others have tests of their own."""

APART = {"pair_mint.py", "pair_verify.py", "offline_local.py", "compile_model.py", "run_compiled_model.py"}
APART |= {"encrypted_provider.py", "encrypted_query.py", "encrypted_steps.py"}  # in test_docs_encrypted


# --- what is written ------------------------------------------------------------------------------------------------


def test_pages_are_current() -> None:
    assert not [str(path) for path in stale()], "run `make docs`"


@pytest.mark.parametrize("page", docs.pages(), ids=lambda page: str(page.relative_to(docs.ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in docs.links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in docs.anchors(target), f"{link}: {target.name} has no such heading"


@pytest.mark.parametrize("page", list(written_pages()), ids=lambda page: str(page.relative_to(docs.ROOT)))
def test_commands_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for command in docs.shell_commands(text):
        docs.app_of(command[0]).parse_args(command[1:], exit_on_error=False, print_error=False)
    for command in docs.inline_commands(text):
        assert docs.exists(command), f"there is no `{' '.join(command)}`"


def test_remedies_name_commands_that_exist() -> None:
    for command in docs.inline_commands((docs.ROOT / "spec" / "errors.toml").read_text("utf-8")):
        assert docs.exists(command), f"there is no `{' '.join(command)}`"


@pytest.mark.parametrize("file", sorted(SNIPPETS.glob("*.toml")), ids=lambda file: file.name)
def test_settings_files_load(file: Path) -> None:
    assert load_settings(file).file == file


def test_every_environment_variable_is_documented() -> None:
    written = "".join(page.read_text("utf-8") for page in docs.DOCS.rglob("*.md"))
    for path in (docs.ROOT / "src").rglob("*.py"):
        for name in re.findall(r"\bLATTICE_[A-Z_]*[A-Z]\b", path.read_text("utf-8")):
            assert name in written, f"{path.name} reads {name}, which no page explains"


def test_every_header_is_documented() -> None:
    written = (docs.DOCS / "reference" / "rest.md").read_text("utf-8")
    for path in (docs.ROOT / "src" / "lattice" / "gateway").rglob("*.py"):
        for name in re.findall(r"x-lattice-[a-z-]+", path.read_text("utf-8")):
            assert f"`{name}`" in written, f"{path.name} has the header {name}, which no page explains"


def test_every_snippet_is_shown_and_run() -> None:
    shown = {name for page in written_pages() for name in named(page.read_text("utf-8"))}
    files = {str(path.relative_to(docs.ROOT)) for folder in (SNIPPETS, EXAMPLES) for path in folder.glob("*.*")}
    assert shown == {name for name in files if not name.endswith(".pyc") and "__pycache__" not in name}
    assert {path.name for path in SNIPPETS.glob("*.py")} == set(PRINTS) | APART


# --- what is run ----------------------------------------------------------------------------------------------------


on_stage = pytest.mark.asyncio(loop_scope="module")


class Stage:
    """A gateway with a paired machine and a hosted one, both answering, and a reader's home folder."""

    def __init__(self, live: LiveGateway, machine: ScriptedRuntime, home: Path) -> None:
        self.live = live
        self.machine = machine
        self.home = home

    async def run(self, script: Path, **replaced: str) -> str:
        """Run a copy of the script in which the reader has filled in the blanks."""
        text = script.read_text("utf-8")
        blanks = {
            "http://127.0.0.1:8787": self.live.url,
            "sk_lat_…": self.live.secret,
            "lat_…": self.machine.runtime,
            "pozaf-pavuk-rikus-hasus-mopoh-zotuv": self.machine.identity.public.words,
        }
        for blank, value in (blanks | replaced).items():
            text = text.replace(blank, value)
        copy = self.home / script.name
        copy.write_text(text, "utf-8")
        environment = {
            "LATTICE_CLIENT_HOME": str(self.home / "client"),
            "LATTICE_BASE_URL": self.live.url,
            "LATTICE_API_KEY": self.live.secret,
            "LATTICE_RUNTIME": self.machine.runtime,
        }
        return await asyncio.to_thread(docs.run_script, copy, environment)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Both machines serve; the owner has credits; this reader has confirmed the machine's fingerprint."""
    home = tmp_path_factory.mktemp("reader")
    # Captured logs keep the gateway, which runs in this process, out of what the snippets print.
    with structlog.testing.capture_logs():
        async with running_gateway(home / "gateway") as live:
            own, hosted = await ScriptedRuntime(live).pair(), await ScriptedRuntime(live, "hosted").pair()
            serving = [asyncio.create_task(serve(machine)) for machine in (own, hosted)]
            _, account = await live.call("GET", "/v1/account")
            await live.call("POST", "/v1/credits/grants", {"account": account["id"], "amount_micro": 1_000_000})
            async with AsyncComputeClient(live.url, live.secret, store=home / "client") as client:
                await client.confirm_fingerprint(own.runtime, own.identity.public.words)
            yield Stage(live, own, home)
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


async def serve(machine: ScriptedRuntime) -> None:
    await machine.connect()
    await machine.serve_forever()


@on_stage
@pytest.mark.parametrize("name", sorted(PRINTS))
async def test_snippet_runs(stage: Stage, name: str) -> None:
    if name == "money.py":
        assert (await stage.live.chat(HOSTED, max_tokens=8))[0] == 200
    printed = await stage.run(SNIPPETS / name)
    for words in PRINTS[name]:
        assert words in printed


@on_stage
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("o*.py")))
async def test_example_runs(stage: Stage, name: str) -> None:
    printed = await stage.run(EXAMPLES / name)
    assert "four" in printed
    if name != "openai_plain.py":
        assert "sealing: end_to_end" in printed


def test_encrypted_example_runs() -> None:
    done = subprocess.run([sys.executable, EXAMPLES / "encrypted_dot_product.py"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    encrypted, clear = re.findall(r"[+-]\d\.\d{6}|[+-]\d\d\.\d{6}", done.stdout)
    assert abs(float(encrypted) - float(clear)) < 1e-4


def test_a_model_compiles_and_runs_as_the_page_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = docs.run_script(SNIPPETS / "compile_model.py", {})
    clear, encrypted = re.findall(r"0\.\d{3}", printed)
    assert abs(float(clear) - float(encrypted)) < 0.01
    predicted, truth = re.findall(r"\d", docs.run_script(SNIPPETS / "run_compiled_model.py", {}))
    assert predicted == truth


@on_stage
async def test_pairing_as_the_pages_tell_it(stage: Stage, tmp_path: Path) -> None:
    runtime_id, bootstrap = (await stage.run(SNIPPETS / "pair_mint.py")).split()
    pairing = await redeem(stage.live.url, bootstrap, StateDir(tmp_path / "machine"))
    assert (pairing.runtime, pairing.verified) == (runtime_id, True)
    assert (await stage.run(SNIPPETS / "pair_verify.py", **{"lat_…": runtime_id})).startswith("verified ")


@on_stage
async def test_the_local_endpoint_needs_no_gateway(stage: Stage, tmp_path: Path) -> None:
    async with local_daemon(tmp_path / "state") as url:
        assert "four" in await stage.run(SNIPPETS / "offline_local.py", **{"http://127.0.0.1:8411": url})


class InstantEngine:
    """Answers "four" at once."""

    name = "instant"

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def offers(self) -> tuple[ModelOffer, ...]:
        return (ModelOffer("instant"),)

    async def chat(self, body: dict[str, Any], *, stream: bool) -> EngineReply:
        return EngineReply(200, whole_answer())

    async def embeddings(self, body: dict[str, Any]) -> EngineReply:
        return EngineReply(200, msgspec.json.encode({"data": []}))


@asynccontextmanager
async def local_daemon(state: Path) -> AsyncIterator[str]:
    settings = DaemonSettings(state_dir=state, local_api=LocalApiSettings(port=0))
    daemon = Daemon(settings, engine=InstantEngine())
    running = asyncio.create_task(daemon.run())
    await asyncio.wait_for(daemon.ready.wait(), 10)
    while not daemon.status().engine.models:  # the engine's first look may come after the port is open
        await asyncio.sleep(0.01)
    assert daemon.endpoint is not None
    yield daemon.endpoint.url
    daemon.stop()
    await running
