"""The key that seals secrets, kept by the operating system's keyring instead of beside them: the extra `keyring`.

How well it is kept there is the keyring's affair: GNOME's and KDE's lock it with the login, macOS and Windows have
their own, and `keyring --list-backends` says which one is used.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lattice.client.encrypted.key_folder import WRAPPING_BYTES, locked_file
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url

SERVICE = "lattice encrypted inference"


def wrapping_key(folder: Path) -> bytes:
    """The 32 bytes for the secrets in a folder, made at the first call; `keyring_unavailable` where they are not to be
    had, `secret_locked` where the entry is not ours."""
    try:
        import keyring
    except ImportError:
        raise LatticeError("keyring_unavailable", "The package keyring is not installed.") from None
    name = f"wrapping key {hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]}"
    with locked_file(folder / "keyring.lock"):
        try:
            found = keyring.get_password(SERVICE, name)
            if found is None:
                keyring.set_password(SERVICE, name, b64url(os.urandom(WRAPPING_BYTES)))
                # What comes back counts: a keyring that forgets would lose every secret that is sealed under the key.
                found = keyring.get_password(SERVICE, name)
        except Exception as error:  # each keyring has its own errors; their texts are not ours to show
            message = f"The keyring cannot be used ({type(error).__name__})."
            raise LatticeError("keyring_unavailable", message) from None
    if found is None:
        raise LatticeError("keyring_unavailable", "The keyring does not keep what it is given.")
    try:
        key = unb64url(found)
    except (ValueError, UnicodeError):
        key = b""
    if len(key) != WRAPPING_BYTES:
        raise LatticeError("secret_locked", "The keyring's entry is not a wrapping key.")
    return key
