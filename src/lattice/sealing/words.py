"""Word fingerprints: 96 bits of a key's hash as six pronounceable words that two people can compare by voice.

A word is five letters, consonant vowel consonant vowel consonant, and stands for 16 bits: a consonant is one of 16
(four bits), a vowel one of four (two bits), most significant first. Letters that sound or look alike are left out.
"""

from __future__ import annotations

import hashlib

CONSONANTS = "bdfghjklmnprstvz"
VOWELS = "aiou"
WORDS = 6
_LABEL = b"lattice fingerprint v1\x00"


def _word(value: int) -> str:
    return (
        CONSONANTS[value >> 12]
        + VOWELS[value >> 10 & 3]
        + CONSONANTS[value >> 6 & 15]
        + VOWELS[value >> 4 & 3]
        + CONSONANTS[value & 15]
    )


def fingerprint_words(raw: bytes) -> str:
    """Six words from SHA-256 over a label and the raw key: finding another key with the same words takes 2^96 tries."""
    digest = hashlib.sha256(_LABEL + raw).digest()
    return "-".join(_word(int.from_bytes(digest[2 * i : 2 * i + 2], "big")) for i in range(WORDS))
