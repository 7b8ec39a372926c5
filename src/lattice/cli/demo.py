"""`lattice demo`: the whole product on one machine, in separate processes, with real models.

Act one: a gateway, a person's own machine and a hosted one start; the machine is paired; a question goes through
OpenAI's SDK, again end to end through ours, and once to hosted capacity; then the receipt and the ledger are shown.
Act two, in `demo_encrypted`: the same gateway, and a model that never sees what it is asked.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lattice.cli.demo_digits import why_not
from lattice.cli.demo_processes import Machine, Processes, RunningGateway, start_gateway
from lattice.cli.demo_screen import Screen, until
from lattice.cli.output import console, reporting
from lattice.core.errors import LatticeError

if TYPE_CHECKING:
    from lattice.client.management import ManagementClient

QUESTION = "What is the capital of France? Answer in one sentence."
MAX_TOKENS = 48
GRANT_MICRO = 1_000_000
HOSTED_MODEL = "lattice:smollm2-135m-instruct"
ActName = Literal["chat", "encrypted"]


def demo(
    *,
    once: Annotated[bool, Parameter(negative=())] = False,
    only: ActName | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Show real requests end to end: sealed to your own machine, to hosted capacity, and on encrypted data.

    Example: lattice demo --once --json

    Parameters
    ----------
    once
        Exit when everything was shown, instead of staying up until Ctrl-C.
    only
        Show one act: `chat` (gateway, sealed relay, your own machine, the ledger) or `encrypted` (a model that is
        compiled, deployed and asked in secret until its credits run out).
    json
        Print one JSON object as the last line.
    """
    with (
        reporting(json),
        tempfile.TemporaryDirectory(prefix="lattice-demo-") as folder,
        Processes(Path(folder)) as processes,
        _client_home(Path(folder, "home")),
    ):
        report = play(processes, Screen(console(stderr=json)), only)
        if json:
            _print_json(report)
        if not once:
            _stay_up(processes)


def play(processes: Processes, screen: Screen, only: ActName | None = None) -> dict[str, Any]:
    """Both acts, or one, at one gateway; returns what the JSON object holds."""
    from lattice.cli.demo_encrypted import EncryptedAct

    lacking = why_not()
    if only == "encrypted" and lacking is not None:
        raise LatticeError("backend_unavailable", f"The act on encrypted data cannot be played: {lacking}")
    report: dict[str, Any] = {}
    if only != "encrypted":
        fetch_model(screen)
    with screen.step("starting the gateway"):
        gateway = start_gateway(processes)
    if only != "encrypted":
        report |= Act(processes, screen, gateway).play()
    if only != "chat" and lacking is not None:
        screen.heading(f"The act on encrypted data is left out: {lacking}")
        report["encrypted"] = {"skipped": lacking}
    elif only != "chat":
        report["encrypted"] = EncryptedAct(processes.folder, screen, gateway).play()
    return report


@contextmanager
def _client_home(folder: Path) -> Iterator[None]:
    """What the clients of this process remember goes there, not into the user's own folder."""
    before = os.environ.get("LATTICE_CLIENT_HOME")
    os.environ["LATTICE_CLIENT_HOME"] = str(folder)
    try:
        yield
    finally:
        del os.environ["LATTICE_CLIENT_HOME"]
        if before is not None:
            os.environ["LATTICE_CLIENT_HOME"] = before


def fetch_model(screen: Screen) -> None:
    """The language model of the first act; nothing happens where it was fetched before."""
    from lattice.runtime.models import DEFAULT_MODEL, fetch

    with screen.bar(f"fetching {DEFAULT_MODEL.id}") as progress:
        fetch(DEFAULT_MODEL, progress=progress)


def _print_json(report: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def _stay_up(processes: Processes) -> None:
    console(stderr=True).print("\nEverything stays up. Ctrl-C stops it.")
    while True:
        processes.require_running()
        time.sleep(0.5)


class Act:
    """The first act, one named step after another."""

    def __init__(self, processes: Processes, screen: Screen, gateway: RunningGateway) -> None:
        self._processes = processes
        self._screen = screen
        self._out = screen.out
        self._gateway = gateway
        self._report: dict[str, Any] = {}

    def play(self) -> dict[str, Any]:
        """Run every step; returns what the JSON object holds."""
        with self._client() as client:
            own = self._pair(client, "own")
            self._say_machine(client, own)
            self._plain_chat(own)
            self._sealed_chat(client, own)
            self._pair(client, "hosted")
            self._hosted_chat(client)
            self._ledger(client)
        return self._report

    def _client(self) -> ManagementClient:
        from lattice.client.management import ManagementClient

        return ManagementClient(
            base_url=self._gateway.url, api_key=self._gateway.key, store=self._processes.folder / "client"
        )

    def _pair(self, client: ManagementClient, name: str) -> str:
        hosted = name == "hosted"
        create = client.create_hosted_runtime if hosted else client.create_personal_runtime
        bootstrap = client.bootstrap_hosted_runtime if hosted else client.bootstrap_personal_runtime
        verify = client.verify_hosted_pairing if hosted else client.verify_pairing
        with self._screen.step(f"pairing the {name} machine and loading its model"):
            runtime = create(name)
            Machine(self._processes, name, self._gateway.url).connect(bootstrap(runtime.id)).start()

            def serving() -> bool:
                record = verify(runtime.id)
                return record.reachable and bool(record.models)

            until(serving, f"the {name} machine and its model")
        return runtime.id

    def _say_machine(self, client: ManagementClient, runtime_id: str) -> None:
        runtime = client.get_personal_runtime(runtime_id)
        model = runtime.models[0].id
        self._report["runtime"] = {"id": runtime_id, "model": model, "fingerprint": runtime.fingerprint}
        self._out.print(f"  {runtime_id} runs {model}; its fingerprint is [bold]{runtime.fingerprint}[/bold]")
        self._out.print("  (a 135-million-parameter model: small, and often wrong)", style="dim")

    def _plain_chat(self, runtime_id: str) -> None:
        import openai

        self._screen.heading("OpenAI's own SDK, unmodified; the gateway seals")
        with openai.OpenAI(base_url=f"{self._gateway.url}/v1", api_key=self._gateway.key) as client:
            response = client.chat.completions.with_raw_response.create(
                model=f"lattice:personal:{runtime_id}",
                messages=[{"role": "user", "content": QUESTION}],
                max_tokens=MAX_TOKENS,
                stream=True,
            )
            text = self._stream(chunk.choices[0].delta.content or "" for chunk in response.parse() if chunk.choices)
            self._report["chat"] = {"text": text, "sealing": response.headers["x-lattice-sealing"]}
            self._out.print(f"  sealing: {response.headers['x-lattice-sealing']}", style="dim")

    def _sealed_chat(self, client: ManagementClient, runtime_id: str) -> None:
        self._screen.heading("Our SDK, end to end: the gateway sees no plaintext")
        stream = client.chat_stream_for_personal_runtime(
            runtime_id, messages=[{"role": "user", "content": QUESTION}], max_tokens=MAX_TOKENS
        )
        text = self._stream(delta.text for delta in stream)
        self._report["sealed_chat"] = {"text": text, "sealing": stream.sealing}
        receipt = stream.receipt
        self._report["receipt"] = {"verified": False} if receipt is None else receipt.as_dict()
        self._out.print(f"  sealing: {stream.sealing}", style="dim")
        if receipt is not None:
            signed = receipt.receipt
            counts = f"{signed.usage.prompt_tokens}+{signed.usage.completion_tokens} tokens"
            digest = (signed.model_digest or "")[:12]
            self._out.print(
                f"  receipt: work {signed.work_id}, {counts}, model sha256 {digest}…, signature verified", style="dim"
            )

    def _hosted_chat(self, client: ManagementClient) -> None:
        self._screen.heading("Hosted capacity, paid with credits")
        client.grant_credits(self._gateway.account, GRANT_MICRO, "demo")
        stream = client.chat_stream(
            HOSTED_MODEL, messages=[{"role": "user", "content": QUESTION}], max_tokens=MAX_TOKENS
        )
        text = self._stream(delta.text for delta in stream)
        rows = [row for row in client.usage() if row["work"] == stream.work_id]
        charged = sum(row["charged_micro"] for row in rows)
        postings = [entry for entry in client.ledger_entries() if entry["work"] == stream.work_id]
        revenue = sum(entry["amount_micro"] for entry in postings if entry["ledger_account"] == "lattice:revenue")
        if charged != revenue:
            raise LatticeError("internal", f"Usage says {charged} micro-credits, the postings say {revenue}.")
        self._report["hosted_chat"] = {
            "text": text,
            "sealing": stream.sealing,
            "work": stream.work_id,
            "charged_micro": charged,
            "postings_micro": revenue,
        }
        self._out.print(f"  charged: {charged} micro-credits, equal to its postings", style="dim")

    def _ledger(self, client: ManagementClient) -> None:
        from lattice.core.money import format_credits

        self._screen.heading("The ledger")
        entries = list(client.ledger_entries())
        for entry in reversed(entries):
            amount = format_credits(entry["amount_micro"])
            self._out.print(f"  {entry['kind']:<7} {entry['ledger_account']:<44} {amount:>12}")
        credits = client.credits()
        total = sum(entry["amount_micro"] for entry in entries)
        self._report["ledger"] = {
            "entries": len(entries),
            "sum_micro": total,
            "held_micro": credits["held_micro"],
            "available_micro": credits["available_micro"],
        }
        self._out.print(f"  all postings together: {total}; held: {credits['held_micro']}", style="dim")

    def _stream(self, parts: Iterator[str] | Any) -> str:
        said = []
        for part in parts:
            said.append(part)
            self._out.print(part, end="", markup=False, soft_wrap=True)
        self._out.print()
        return "".join(said)
