"""BERT's tokens: lower case, no accents, punctuation apart, then the longest pieces that the vocabulary has."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

LONGEST_WORD = 100
CJK = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FA1F))


class WordPieces:
    """A vocabulary, one piece a line."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.ids = {piece: number for number, piece in enumerate(vocabulary)}

    def encode(self, text: str, longest: int) -> list[int]:
        """Ids between [CLS] and [SEP], at most `longest` of them all."""
        pieces = [piece for word in words(text) for piece in self._pieces(word)]
        return [self.ids["[CLS]"], *pieces[: longest - 2], self.ids["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        found: list[int] = []
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            head = "##" if start else ""
            end = next((end for end in ends if head + word[start:end] in self.ids), 0)
            if not end or len(word) > LONGEST_WORD:
                return [self.ids["[UNK]"]]
            found.append(self.ids[head + word[start:end]])
            start = end
        return found


def words(text: str) -> Iterator[str]:
    """Words, and punctuation and Chinese characters one by one."""
    word = ""
    for character in unicodedata.normalize("NFD", "".join(_cleaned(text))).lower():
        if unicodedata.category(character) == "Mn":
            continue
        if character.isspace() or _stands_alone(character):
            if word:
                yield word
            word = ""
            if not character.isspace():
                yield character
        else:
            word += character
    if word:
        yield word


def _cleaned(text: str) -> Iterator[str]:
    for character in text:
        if character in "\t\n\r" or unicodedata.category(character) == "Zs":
            yield " "
        elif not unicodedata.category(character).startswith("C") and character != "\ufffd":
            yield character


def _stands_alone(character: str) -> bool:
    code = ord(character)
    symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return symbol or unicodedata.category(character).startswith("P") or any(low <= code <= high for low, high in CJK)
