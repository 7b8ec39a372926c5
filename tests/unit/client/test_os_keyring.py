"""The wrapping key in the operating system's keyring: a file backend everywhere, GNOME's own where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keyring
import pytest
from keyring.backends.fail import Keyring as NoKeyring
from keyring.backends.null import Keyring as ForgetfulKeyring
from keyrings.alt.file import PlaintextKeyring

from lattice.client.encrypted.key_folder import KeyFolder, Wrapping
from lattice.client.encrypted.os_keyring import SERVICE, wrapping_key
from lattice.client.encrypted.query import QueryClient
from lattice.core.errors import LatticeError
from lattice.fhe.keys.evaluation import KeyGenerator
from tests.support.fhe import small


@pytest.fixture
def in_file(tmp_path: Path) -> Iterator[Path]:
    """`keyrings.alt`'s file, in the place of what the machine has."""
    before, backend = keyring.get_keyring(), PlaintextKeyring()
    backend.file_path = str(tmp_path / "keyring.cfg")
    keyring.set_keyring(backend)
    yield Path(backend.file_path)
    keyring.set_keyring(before)


def folder(root: Path, **how: bool) -> KeyFolder:
    return KeyFolder(root, "http://gateway", "mdl_1", "alice", "ksp_1", Wrapping(root, **how))


def code(call: object, *arguments: object) -> str:
    with pytest.raises(LatticeError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.code


def test_a_secret_is_sealed_under_a_key_that_is_not_in_its_folder(tmp_path: Path, in_file: Path) -> None:
    root = tmp_path / "keys"
    with KeyGenerator(small()).secret_key() as secret:
        folder(root, keyring=True).write_secret(secret)
        found = folder(root, keyring=True).secret()
        assert found is not None
        with found:
            assert found.key_id == secret.key_id
    assert not (root / "wrapping.key").exists()
    assert SERVICE.replace(" ", "_20") in in_file.read_text()
    assert code(folder(root).secret) == "secret_locked"
    in_file.unlink()  # another computer's keyring
    assert code(folder(root, keyring=True).secret) == "secret_locked"


def test_the_environment_chooses_the_keyring(tmp_path: Path, in_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATTICE_KEY_STORE", "keyring")
    with KeyGenerator(small()).secret_key() as secret:
        folder(tmp_path).write_secret(secret)
    assert in_file.exists()
    assert code(lambda: QueryClient("eut_x", folder=tmp_path, passphrase="x")) == "secret_locked"
    monkeypatch.setenv("LATTICE_KEY_STORE", "cloud")
    assert code(lambda: QueryClient("eut_x", folder=tmp_path)) == "config_invalid"


def test_folders_have_keys_of_their_own_and_two_that_start_together_have_one(tmp_path: Path, in_file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(wrapping_key, [tmp_path / "a"] * 8))) == 1
    assert wrapping_key(tmp_path / "b") != wrapping_key(tmp_path / "a")


@pytest.mark.parametrize("backend", [NoKeyring, ForgetfulKeyring])
def test_a_keyring_that_is_not_there_or_forgets_is_refused(tmp_path: Path, in_file: Path, backend: type) -> None:
    keyring.set_keyring(backend())
    assert code(wrapping_key, tmp_path) == "keyring_unavailable"


def test_an_entry_of_somebody_else_s_is_no_key(tmp_path: Path, in_file: Path) -> None:
    wrapping_key(tmp_path)
    names = in_file.read_text()
    entry = next(line for line in names.splitlines() if line.startswith("wrapping"))
    name = entry.partition("=")[0].strip().replace("_20", " ")
    keyring.set_password(SERVICE, name, "not a key")
    assert code(wrapping_key, tmp_path) == "secret_locked"


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(LatticeError) as caught:
        wrapping_key(tmp_path)
    assert caught.value.code == "keyring_unavailable"
    assert "`keyring`" in caught.value.spec.remedy


def test_the_sdk_does_not_load_the_package() -> None:
    code = "import sys, lattice.client.encrypted.query; sys.exit('keyring' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


GNOME = """
printf 'login password' | {daemon} --unlock --components=secrets --foreground >/dev/null 2>&1 &
daemon=$!
for _ in $(seq 100); do
    dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \\
        string:org.freedesktop.secrets 2>/dev/null | grep -q true && break
    sleep 0.05
done
{python} -c "$STORY"
status=$?
kill $daemon
exit $status
"""
STORY = """
from pathlib import Path
import keyring
from keyring.backends.SecretService import Keyring
from lattice.client.encrypted.os_keyring import wrapping_key
keyring.set_keyring(Keyring())
key = wrapping_key(Path("keys"))
assert key == wrapping_key(Path("keys")) and len(key) == 32
assert key not in b"".join(path.read_bytes() for path in Path().rglob("*") if path.is_file())
"""


@pytest.mark.skipif(
    not (shutil.which("dbus-run-session") and shutil.which("gnome-keyring-daemon")),
    reason="needs Debian's dbus and gnome-keyring",
)
def test_gnome_s_keyring_keeps_it_behind_the_login_password(tmp_path: Path) -> None:
    """A session bus and a daemon of this test's own, with an unlocked keyring under a temporary home."""
    (tmp_path / "run").mkdir(mode=0o700)
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "share"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    script = GNOME.format(daemon=shutil.which("gnome-keyring-daemon"), python=sys.executable)
    done = subprocess.run(
        ["dbus-run-session", "--", "bash", "-c", script],
        env={**os.environ, **home, "STORY": STORY},
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "share" / "keyrings").iterdir())
