"""The public key's type. It holds no secret and lives in `ckks.public_key`; here for those who look for it here."""

from lattice.fhe.ckks.public_key import PublicKey

__all__ = ["PublicKey"]
