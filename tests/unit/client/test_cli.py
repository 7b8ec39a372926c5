"""The `lattice` command line, against the played gateway: words for people, one JSON document for programs."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lattice.cli.amounts import micro_credits
from lattice.cli.main import _COMMANDS, app
from lattice.client import compute
from lattice.client.disk import disk_key_store
from lattice.core.clock import SystemClock
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from tests.unit.client.played import KEY, ORIGIN, PlayedDaemon, PlayedGateway, fault

Result = tuple[int, str, str]


class Cli:
    """Runs a command in this process and returns exit code, stdout and stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str], gateway: PlayedGateway, home: Path) -> None:
        self.capsys, self.gateway, self.home = capsys, gateway, home

    def __call__(self, *words: str) -> Result:
        code = 0
        try:
            app(list(words), result_action="return_value")
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *words: str) -> Any:
        code, out, err = self(*words, "--json")
        assert code == 0, (out, err)
        return json.loads(out)

    def pair(self) -> PlayedDaemon:
        made = self.json("runtimes", "create", "laptop")
        text = self.json("runtimes", "bootstrap", made["id"])["bootstrap"]
        daemon = self.gateway.daemons[made["id"]]
        daemon.redeem(text, self.gateway.minted[made["id"]])
        return daemon


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    gateway = PlayedGateway(SystemClock())  # type: ignore[arg-type]
    real = httpx2.Client
    monkeypatch.setattr(compute.httpx2, "Client", lambda **_: real(transport=httpx2.MockTransport(gateway)))
    monkeypatch.setenv("LATTICE_API_KEY", KEY)
    monkeypatch.setenv("LATTICE_BASE_URL", ORIGIN)
    monkeypatch.setenv("LATTICE_CLIENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "300")
    return Cli(capsys, gateway, tmp_path / "home")


def test_pair_verify_and_ask(cli: Cli) -> None:
    daemon = cli.pair()
    found = cli.json("runtimes", "verify", daemon.runtime_id)
    assert (found["trust"], found["fingerprint"]) == ("verified", daemon.identity.public.words)
    answer = cli.json("chat", daemon.runtime_id, "hello", "--max-tokens", "9")
    assert answer["text"] == "one two three"
    assert (answer["sealing"], answer["receipt"]["verified"]) == ("end_to_end", True)
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 3}
    assert daemon.seen[0]["max_tokens"] == 9
    code, out, err = cli("chat", daemon.runtime_id, "hello", "--system", "be brief")
    assert (code, out) == (0, "one two three\n")
    assert "end_to_end" in err
    assert "receipt verified" in err
    assert daemon.seen[1]["messages"][0] == {"role": "system", "content": "be brief"}


def test_the_keys_are_kept_in_the_users_private_folder(cli: Cli) -> None:
    cli.pair()
    path = cli.home / "keystore.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(disk_key_store(cli.home).pending(ORIGIN, next(iter(cli.gateway.daemons)))) == 1


def test_lists_and_words_for_people(cli: Cli) -> None:
    code, out, _ = cli("runtimes", "list")
    assert (code, out) == (0, "No machines yet.\n")
    daemon = cli.pair()
    _, out, _ = cli("runtimes", "list")
    assert daemon.runtime_id in out
    assert "verified" in out
    assert len(cli.json("runtimes", "list", "--reachable")["runtimes"]) == 1
    _, out, _ = cli("runtimes", "bootstrap", daemon.runtime_id)
    assert f"lattice-ctl relay connect --gateway {ORIGIN} --token lbt_" in out


def test_a_machine_paired_elsewhere_is_confirmed_by_its_words(cli: Cli) -> None:
    daemon = cli.gateway.add()
    daemon.allowed.add(disk_key_store(cli.home).sender().public)
    _, out, _ = cli("runtimes", "verify", daemon.runtime_id)
    assert "unverified" in out
    assert "--words" in out
    code, _, err = cli("runtimes", "verify", daemon.runtime_id, "--words", "wrong words")
    assert code == 6
    assert "pairing_invalid" in err
    found = cli.json("runtimes", "verify", daemon.runtime_id, "--words", daemon.identity.public.words)
    assert found["trust"] == "verified"


def test_revoking(cli: Cli) -> None:
    daemon = cli.pair()
    assert cli.json("runtimes", "revoke", daemon.runtime_id)["state"] == "revoked"
    assert cli("runtimes", "revoke", new_id(Prefix.RUNTIME, 1))[0] == 1


def test_keys(cli: Cli) -> None:
    words = ("keys", "create", "my app", "--scope", "a", "--scope", "b", "--spend-cap", "2.5", "--model", "m")
    made = cli.json(*words)
    sent = made["body"]
    assert made["path"] == "/api-keys"
    assert (sent["name"], sent["scopes"], sent["allowed_models"]) == ("my app", ["a", "b"], ["m"])
    assert sent["spend_cap_micro"] == 2_500_000
    assert "expires_at_ms" not in sent
    assert cli.json("keys", "create", "x")["body"] == {"name": "x"}
    assert cli.json("keys", "revoke", "key_1")["path"] == "/api-keys/key_1"
    assert cli.json("keys", "show")["path"] == "/key"
    assert cli("keys", "revoke", "../accounts")[0] == 2


def test_money(cli: Cli) -> None:
    made = cli.json("credits", "grant", "acc_1", "2.5", "--reason", "welcome")
    assert made["body"] == {"account": "acc_1", "amount_micro": 2_500_000, "reason": "welcome"}
    assert cli.gateway.requests[-1].headers["idempotency-key"]
    assert cli.json("credits", "show")["path"] == "/credits"
    assert len(cli.json("usage", "--limit", "3")["usage"]) == 3
    assert len(cli.json("ledger")["entries"]) == 5
    cli.json("ledger", "--work", "work_1")
    assert cli.gateway.requests[-1].url.params["work"] == "work_1"
    assert cli("ledger")[0] == 0


def test_amounts_are_exact() -> None:
    assert micro_credits("0.000001") == 1
    assert micro_credits("12") == 12_000_000
    for bad in ("0", "-1", "0.0000001", "many", "NaN", "Infinity", "1e30"):
        with pytest.raises(LatticeError):
            micro_credits(bad)


def test_hosted_machines(cli: Cli) -> None:
    made = cli.json("runtimes", "hosted", "create", "rack-1")
    text = cli.json("runtimes", "hosted", "bootstrap", made["id"])["bootstrap"]
    daemon = cli.gateway.daemons[made["id"]]
    daemon.redeem(text, cli.gateway.minted[made["id"]])
    assert cli.json("runtimes", "hosted", "verify", made["id"])["trust"] == "verified"
    assert len(cli.json("runtimes", "hosted", "list")["runtimes"]) == 1
    assert cli.json("runtimes", "hosted", "revoke", made["id"])["state"] == "revoked"
    assert all("/hosted-runtimes" in str(r.url) for r in cli.gateway.requests)


def test_errors_become_exit_codes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.gateway.faults.append(fault(LatticeError("insufficient_scopes")))
    code, out, _ = cli("runtimes", "list", "--json")
    assert (code, json.loads(out)["error"]) == (5, "insufficient_scopes")
    monkeypatch.delenv("LATTICE_API_KEY")
    code, _, err = cli("runtimes", "list")
    assert code == 5
    assert "LATTICE_API_KEY" in err


@pytest.mark.parametrize("row", [row for row in _COMMANDS if row[1] not in ("up", "demo")], ids=lambda row: row[2])
def test_every_help_has_an_example_and_every_argument_a_word(cli: Cli, row: Any) -> None:
    group, name, *_ = row
    path = [] if group is app else list(group.name)
    if "hosted" in path:
        path = ["runtimes", "hosted"]
    code, out, _ = cli(*path, name, "--help")
    assert code == 0
    assert f"Example: lattice {' '.join([*path, name])}" in out
    assert "--json" in out


def test_help_loads_no_command_and_no_client() -> None:
    program = (
        "import sys\nfrom lattice.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('lattice.client', 'lattice.cli.keys', 'httpx2', 'cryptography')\n"
        "loaded = [m for m in sys.modules if m.startswith(heavy)]\n"
        "assert not loaded, loaded"
    )
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, capture_output=True)
