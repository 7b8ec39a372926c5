"""The demo's second act: a provider deploys a model, a user asks it in secret, and the credits run out.

The provider has an account of its own and compiles the MNIST perceptron of `examples/models`. The user holds a token,
makes keys here, sends encrypted digits and decrypts the answers. Workers are processes that the gateway starts.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from lattice.cli import demo_digits
from lattice.cli.demo_asking import Questions, ask, in_the_clear
from lattice.cli.demo_processes import RunningGateway
from lattice.cli.demo_screen import Screen
from lattice.cli.output import table
from lattice.core.errors import LatticeError
from lattice.core.money import format_credits
from lattice.gateway.workers.slices import DRAIN_MS

if TYPE_CHECKING:
    from lattice.client.encrypted.query import QueryClient
    from lattice.client.management import ManagementClient
    from lattice.fhe.compiler.compiled import Compiled

MODEL, USER, HARDWARE = "mnist", "alice", "demo"
SHOWN = 8
PRICE = 100_000
"""Micro-credits per second of the demo's hardware class: two hundred times the default, so that it is over soon."""
GRANT = 15 * PRICE
"""Ten seconds of a worker, and the reserve of five in which it stops."""
PAID_MS = GRANT * 1000 // PRICE - DRAIN_MS
"""For so long the worker runs; the rest is the reserve."""
PATIENCE_S = 60.0
SCOPES = [
    "lattice:models:manage",
    "lattice:workers:manage",
    "lattice:tokens:manage",
    "lattice:credits:read",
]


class EncryptedAct:
    """One named step after another; `report` is what the JSON object holds of it."""

    def __init__(self, folder: Path, screen: Screen, gateway: RunningGateway) -> None:
        self._folder = folder
        self._screen = screen
        self._gateway = gateway
        self.report: dict[str, Any] = {}

    def play(self) -> dict[str, Any]:
        """Run every step."""
        self._screen.heading("A model on encrypted data: handwritten digits that nobody but their owner sees")
        compiled, publisher = self._compile()
        with self._open_account() as provider:
            self._deploy(provider)
            token = provider.tokens.create(MODEL, "phone", user=USER)["secret"]
            with self._user(token, publisher) as user:
                self._make_keys(user)
                worker = self._start_worker(provider)
                self._ask(user)
                self._run_dry(user, provider, worker["id"])
            self._say_who_saw_what(provider)
            self._settle(provider, worker["id"])
        self.report["model"] = self._about(compiled)
        return self.report

    # --- the provider --------------------------------------------------------------------------------------

    def _compile(self) -> tuple[Compiled, bytes]:
        """The program, written to a file and signed; and the publisher's public key."""
        from lattice.fhe import artefact
        from lattice.fhe.compiler.choices import with_choice
        from lattice.fhe.compiler.compile import compile
        from lattice.fhe.compiler.importers.load import load
        from lattice.sealing.identity import IdentityKey

        known, publisher, begun = demo_digits.read("calibration"), IdentityKey.generate(), time.monotonic()
        with self._screen.counted_step("provider: compiling a perceptron, 784-128-128-10") as show:
            model = with_choice(load(demo_digits.FOLDER / "model.onnx"), known.x, known.y)
            compiled = compile(
                model, known.x, labels=known.y, progress=lambda stage, share: show(stage, round(share * 100), 100)
            )
            artefact.save(compiled, self._artefact, publisher)
        self.report["compile_s"] = round(time.monotonic() - begun, 2)
        about = self._about(compiled)
        self._screen.note(
            f"N = {about['n']}, {about['security_bits']} bits of security, file {_size(about['bytes'])}, "
            f"accuracy {about['accuracy']:.1%} with the noise of encryption, {about['clear_accuracy']:.1%} without"
        )
        return compiled, publisher.public.raw

    @property
    def _artefact(self) -> Path:
        return self._folder / "mnist.lattice"

    def _about(self, compiled: Compiled) -> dict[str, Any]:
        report = compiled.report
        return {
            "n": 1 << report["parameters"]["log_n"],
            "security_bits": report["parameters"]["security_bits"],
            "bytes": self._artefact.stat().st_size,
            "accuracy": report["accuracy"]["simulated"],
            "clear_accuracy": report["accuracy"]["clear"],
        }

    def _open_account(self) -> ManagementClient:
        """The operator's part: an account with credits, and a kind of machine whose price ends the demo soon."""
        granted = f"{format_credits(GRANT)} credits"
        with (
            self._screen.step(f"operator: granting the provider {granted}"),
            self._client(self._gateway.key) as operator,
        ):
            operator.set_hardware_class(HARDWARE, micro_per_second=PRICE, cores=1, memory_mib=1024)
            account = operator.create_account("provider")["id"]
            key = operator.create_key("provider", account=account, scopes=SCOPES)["secret"]
            operator.grant_credits(account, GRANT, "demo")
        self.report |= {"granted_micro": GRANT, "micro_per_second": PRICE}
        return self._client(key)

    def _client(self, key: str) -> ManagementClient:
        from lattice.client.management import ManagementClient

        return ManagementClient(self._gateway.url, key, store=self._folder / "provider")

    def _deploy(self, provider: ManagementClient) -> None:
        with self._screen.counted_step("provider: uploading the model and deploying it") as show:
            provider.create_encrypted_model(MODEL, weights_exposure="hosted")
            version = provider.upload_model(MODEL, self._artefact, progress=show)["version"]
            provider.wait_ready(MODEL, version, timeout_s=PATIENCE_S)

    def _start_worker(self, provider: ManagementClient) -> dict[str, Any]:
        rate = f"{format_credits(PRICE)} credits a second"
        with self._screen.step(f"provider: starting a worker, a process of its own, for {rate} while it is active"):
            (worker,) = provider.workers.start(MODEL, hardware_class=HARDWARE)
            return provider.workers.wait_active(worker["id"], timeout_s=PATIENCE_S)

    # --- the user ------------------------------------------------------------------------------------------

    def _user(self, token: str, publisher: bytes) -> QueryClient:
        from lattice.client.encrypted.query import QueryClient

        return QueryClient(token, base_url=self._gateway.url, folder=self._folder / "user", trust=[publisher])

    def _make_keys(self, user: QueryClient) -> None:
        begun = time.monotonic()
        with self._screen.counted_step("user: making keys, and uploading those that are public") as show:
            user.keys.ensure(show)
        (registered,) = user.keys.list()
        self.report |= {"key_bytes": registered["bytes"], "keys_s": round(time.monotonic() - begun, 2)}
        self._screen.note(f"evaluation keys {_size(registered['bytes'])}; the secret key stays in the user's folder")

    def _ask(self, user: QueryClient) -> None:
        """Show some digits, and how far the scores are from those of onnx's own evaluator in the clear."""
        digits = demo_digits.read("digits")
        asked = [ask(user, image, int(label)) for image, label in zip(digits.x[:SHOWN], digits.y, strict=False)]
        clear = in_the_clear(digits.x[:SHOWN])
        errors = [float(abs(each.values - row).max()) for each, row in zip(asked, clear, strict=True)]
        self._screen.out.print()
        pictures = [
            demo_digits.picture(image, f"says {each.prediction}") for image, each in zip(digits.x, asked, strict=False)
        ]
        for line in demo_digits.side_by_side(pictures, self._screen.out.width - 2):
            self._screen.line(line)
        columns = ("decrypted", "truth", "largest error", "encrypt", "evaluate", "decrypt", "round trip")
        rows = (
            (
                str(each.prediction),
                str(each.truth),
                f"{error:.4f}",
                *(f"{ms:.1f} ms" for ms in (each.encrypt, each.evaluate, each.decrypt, each.round_trip)),
            )
            for each, error in zip(asked, errors, strict=True)
        )
        table(self._screen.out, columns, rows)
        self.report |= {
            "predictions": [each.prediction for each in asked],
            "truth": [each.truth for each in asked],
            "clear": clear.argmax(axis=1).tolist(),
            "max_error": round(max(errors), 6),
            "query_bytes": asked[0].sent,
            "answer_bytes": asked[0].received,
            "median_ms": {
                name: round(median(getattr(each, name) for each in asked), 1)
                for name in ("encrypt", "evaluate", "decrypt", "round_trip")
            },
        }
        self._screen.note(f"a question is {_size(asked[0].sent)}, an answer {_size(asked[0].received)}, both encrypted")

    def _run_dry(self, user: QueryClient, provider: ManagementClient, worker: str) -> None:
        """Ask on until the gateway refuses: nobody stops the worker."""
        answered, right = SHOWN, 0
        with self._screen.bar("user") as show:
            questions = Questions(user, PATIENCE_S)
            for each in questions:
                answered, right = answered + 1, right + (each.prediction == each.truth)
                left = provider.credits()
                spent = GRANT - left["available_micro"] - left["held_micro"]
                show(f"{answered} answers, till the credits are used up", spent, PRICE * PAID_MS // 1000)
        self.report |= {"answered": answered, "right_afterwards": right, "refused_with": questions.refused_with}
        ended = provider.workers.wait_stopped(worker)
        late_ms = ended["billed_ms"] - PAID_MS
        self.report |= {
            "worker_stopped_because": ended["reason"],
            "worker_stopped_after_ms": late_ms,
            "worker_ms": ended["billed_ms"],
            "credits_micro": ended["billed_micro"],
        }
        self._screen.line(
            f"the worker stopped by itself: {ended['reason']}, {late_ms} ms after the balance was used up,"
        )
        self._screen.line(f"and question {answered + 1} got the error {questions.refused_with}")

    # --- afterwards ----------------------------------------------------------------------------------------

    def _say_who_saw_what(self, provider: ManagementClient) -> None:
        (token,) = provider.tokens.list(MODEL)
        rows = (
            ("the user", "the digits, the answers, and the secret key"),
            ("the gateway", "the compiled model, ciphertexts, evaluation keys (they cannot decrypt), times and sizes"),
            ("the worker", "the model's weights, ciphertexts, evaluation keys"),
            ("the provider", f"its model, its bill, and that {token['user']} asked {token['queries']} times"),
        )
        self._screen.heading("Who saw what")
        for who, what in rows:
            self._screen.line(f"{who:<14}{what}")

    def _settle(self, provider: ManagementClient, worker: str) -> None:
        """The worker's price is what the ledger charged, and it does not suffice for another one."""
        charges = [row for row in provider.transactions() if row["work"] == worker and row["kind"] == "worker_charge"]
        charged = sum(row["amount_micro"] for row in charges if row["ledger_account"] == "lattice:revenue")
        credits = provider.credits()
        cost = self.report["credits_micro"]
        if charged != cost or cost + credits["available_micro"] != GRANT or credits["held_micro"]:
            raise LatticeError("internal", f"The worker says {cost} micro-credits, the postings say {charged}.")
        try:
            provider.workers.start(MODEL, hardware_class=HARDWARE)
        except LatticeError as error:
            refused = error.code
        else:
            raise LatticeError("internal", "A worker could be started without credits.")
        each = cost / self.report["answered"]
        self.report |= {"available_micro": credits["available_micro"], "postings_micro": charged}
        self._screen.heading("What it cost")
        self._screen.line(
            f"{format_credits(cost)} credits, equal to the ledger's postings: {each:,.0f} micro-credits an answer"
        )
        self._screen.note(
            f"{format_credits(credits['available_micro'])} are left of the reserve in which a worker stops; "
            f"that starts none: {refused}"
        )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} KB"
