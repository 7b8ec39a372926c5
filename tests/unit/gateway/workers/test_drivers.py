"""What a worker's process gets from the gateway that starts it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lattice.gateway.workers.drivers import CREDENTIAL, Launch, LocalProcesses


async def test_a_worker_has_its_credential_and_nothing_else_of_the_operator_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LATTICE_GATEWAY_PEPPER", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "secret")
    told = tmp_path / "environment"
    script = f"import os; open({str(told)!r}, 'w').write(repr(sorted(os.environ)))"
    driver, gone = LocalProcesses(tmp_path / "workers", ("-c", script)), asyncio.Event()
    launch = Launch(
        worker_id="wkr_x", credential="rlc_x", gateway="http://127.0.0.1:1", cores=1, memory_mib=64, model="mdl_x"
    )
    await driver.start(launch, lambda worker: gone.set())
    await asyncio.wait_for(gone.wait(), 20)
    await driver.close()
    names = set(eval(told.read_text()))
    assert {CREDENTIAL, "PATH", "PYTHONPATH"} <= names
    assert not [name for name in names if "SECRET" in name or "PASSWORD" in name or "PEPPER" in name]
