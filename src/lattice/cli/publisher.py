"""Publishers' keys: an Ed25519 key in a PEM file signs compiled models; its public half is what others trust."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lattice.cli.model_views import DEFAULT, Local, publisher_text
from lattice.cli.output import show
from lattice.core.errors import LatticeError

if TYPE_CHECKING:
    from rich.console import Console

    from lattice.sealing.identity import IdentityKey

MAX_PEM = 1 << 16


def key(file: str, /, *, common: Local = DEFAULT) -> None:
    """Show the publisher's key in a file, and make one there first if there is no file.

    Tell the key to whoever shall trust your models: they pass it to `--trust`.

    Parameters
    ----------
    file
        The PEM file. It is made readable by you alone, without a passphrase: keep it on a disk that is encrypted.
    """
    with common.session():
        made = not Path(file).exists()
        if made:
            _make(Path(file))
        public = read_signer(file).public
        answer = {"file": file, "made": made, "publisher": publisher_text(public.raw), "words": public.words}

        def people(out: Console) -> None:
            out.print(f"{'Made' if made else 'Found'} {file}", markup=False)
            out.print(f"{answer['publisher']}", style="bold", markup=False)
            out.print(public.words, markup=False)

        show(answer, common.json, people)


def _make(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise LatticeError("invalid_request", f"{path} cannot be written: {error.strerror}.") from None
    with open(handle, "wb") as file:
        file.write(pem)


def read_signer(path: str) -> IdentityKey:
    """The key in a PEM file (PKCS #8 or OpenSSH, no passphrase)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    from lattice.sealing.identity import IdentityKey

    try:
        with Path(path).open("rb") as file:
            pem = file.read(MAX_PEM)
        load = load_ssh_private_key if b"OPENSSH" in pem[:64] else load_pem_private_key
        found = load(pem, None)
    except OSError as error:
        raise LatticeError("invalid_request", f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError):
        raise LatticeError("invalid_request", f"{path} is not a private key in PEM form without passphrase.") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise LatticeError("invalid_request", f"{path} is no Ed25519 key; `lattice models key` makes one.")
    return IdentityKey.from_bytes(found.private_bytes_raw())


def trusted(keys: list[str] | None) -> set[bytes] | None:
    """Raw keys of what was passed to --trust; None where nothing was."""
    if not keys:
        return None
    from lattice.sealing.identity import PublicIdentity

    return {PublicIdentity.from_text(text, "invalid_request").raw for text in keys}
