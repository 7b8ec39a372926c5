"""Settings: order of the sources, and errors that name the key and the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lattice.core.errors import LatticeError
from lattice.runtime.settings_file import describe, load_settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CONFIG_PATH", "STATE_DIR", "GATEWAY_URL", "ENGINE__KIND", "LOCAL_API__PORT"):
        monkeypatch.delenv(f"LATTICE_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults_without_any_file(tmp_path: Path) -> None:
    loaded = load_settings()
    assert loaded.file is None
    assert loaded.settings.engine.kind == "llama"
    assert loaded.settings.state_dir == tmp_path / "state" / "lattice"
    assert set(loaded.sources.values()) == {"default"}


def test_the_first_file_wins_and_files_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = write(
        tmp_path / "config" / "lattice" / "config.toml", "gateway_url = 'http://user'\n[engine]\ncontext = 512\n"
    )
    assert load_settings().file == user
    named = write(tmp_path / "named.toml", "gateway_url = 'http://named'\n")
    monkeypatch.setenv("LATTICE_CONFIG_PATH", str(named))
    assert load_settings().settings.gateway_url == "http://named"
    assert load_settings().settings.engine.context == 4096
    given = write(tmp_path / "given.toml", "gateway_url = 'http://given'\n")
    assert load_settings(given).settings.gateway_url == "http://given"


def test_the_environment_goes_above_the_file_and_sources_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.toml", "[engine]\nkind = 'llama'\nconcurrency = 4\n[local_api]\nport = 1\n")
    monkeypatch.setenv("LATTICE_ENGINE__KIND", "openai")
    loaded = load_settings(file)
    assert loaded.settings.engine.kind == "openai"
    assert loaded.settings.engine.concurrency == 4
    assert loaded.sources["engine.kind"] == "LATTICE_ENGINE__KIND"
    assert loaded.sources["engine.concurrency"] == str(file)
    assert loaded.sources["engine.context"] == "default"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[engine]\nkindd = 'llama'\n", "unknown setting `engine.kindd`"),
        ("state = 1\n", "unknown setting `state`"),
        ("[engine]\ncontext = 'many'\n", "`engine.context`"),
        ("engine = 3\n", "`engine`"),
        ("[local_api]\nhost = '0.0.0.0'\n", "must be a loopback address"),
        ("[engine\n", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path / "bad.toml", text)
    with pytest.raises(LatticeError) as caught:
        load_settings(file)
    assert caught.value.code == "config_invalid"
    assert words in caught.value.message
    assert str(file) in caught.value.message


def test_a_bad_variable_is_named_and_its_value_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATTICE_LOCAL_API__PORT", "canary")
    with pytest.raises(LatticeError) as caught:
        load_settings()
    assert "LATTICE_LOCAL_API__PORT" in caught.value.message
    assert "canary" not in caught.value.message


def test_a_missing_file_is_an_error_when_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(LatticeError, match="no configuration file"):
        load_settings(tmp_path / "none.toml")


def test_the_gateways_own_table_in_a_shared_file_is_left_alone(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[gateway]\nport = 1\n")
    assert load_settings(file).settings.gateway_url == "http://127.0.0.1:8787"


def test_description_masks_secrets(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[engine]\napi_key = 'canary'\n")
    rows = {row.key: row for row in describe(load_settings(file))}
    assert rows["engine.api_key"].value == "**********"
    assert "canary" not in str(rows)
    assert all(row.description for row in rows.values())


def test_every_setting_has_a_source_and_declared_models_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[engine]\nkind='openai'\n[[engine.models]]\nid='m'\ntasks=['embeddings']\n")
    loaded = load_settings(file)
    assert loaded.settings.engine.models[0].tasks == ("embeddings",)
    assert loaded.sources["engine.models"] == str(file)
