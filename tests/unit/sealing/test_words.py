"""Word fingerprints: the form, the alphabet, and that every bit of 96 shows."""

from __future__ import annotations

import re

from lattice.sealing.words import CONSONANTS, VOWELS, WORDS, _word, fingerprint_words

WORD = re.compile(f"[{CONSONANTS}][{VOWELS}][{CONSONANTS}][{VOWELS}][{CONSONANTS}]")


def test_six_pronounceable_words() -> None:
    words = fingerprint_words(bytes(32)).split("-")
    assert len(words) == WORDS == 6
    assert all(WORD.fullmatch(word) for word in words)


def test_the_fingerprint_of_a_key_never_changes() -> None:
    assert fingerprint_words(bytes(32)) == fingerprint_words(bytes(32))
    assert fingerprint_words(bytes(32)) != fingerprint_words(bytes(31) + b"\x01")


def test_each_of_the_65536_words_stands_for_one_number() -> None:
    assert len({_word(value) for value in range(65_536)}) == 65_536


def test_the_alphabet_has_the_sizes_that_the_bits_need() -> None:
    assert len(set(CONSONANTS)) == 16
    assert len(set(VOWELS)) == 4
    assert not set(CONSONANTS) & set(VOWELS)
