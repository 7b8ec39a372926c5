"""The examples' data: read right, split the same way every time, and a registry that is away is said in words."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from examples.models.data import packages
from examples.models.data.dataset import split
from examples.models.data.r_data import Reader, Vector
from examples.models.data.word_pieces import WordPieces, words


def integers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def text(value: str) -> bytes:
    return integers(9, len(value)) + value.encode()


def names(*values: str) -> bytes:
    """The attribute `names` of a list, as R writes it."""
    symbol = integers(1) + text("names")
    return integers(1026) + symbol + integers(16, len(values)) + b"".join(map(text, values)) + integers(254)


def test_reads_a_list_of_vectors() -> None:
    head = b"X\n" + integers(2, 0, 0)
    body = integers(19 | 512, 2) + integers(13, 3, 1, 2, 3) + integers(14, 1) + struct.pack(">d", 2.5) + names("a", "b")
    found = Reader(head + body).item()
    assert isinstance(found, Vector)
    assert {name: vector.value for name, vector in found.named().items()} == {"a": (1, 2, 3), "b": (2.5,)}


def test_version_3_has_an_encoding_before_the_data() -> None:
    found = Reader(b"X\n" + integers(3, 0, 0, 5) + b"UTF-8" + integers(13, 1, 7)).item()
    assert found.value == (7,)


def test_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="XDR"):
        Reader(b"A\n" + integers(3, 0, 0))
    with pytest.raises(ValueError, match="type 3 is not read"):
        Reader(b"X\n" + integers(2, 0, 0, 3, 0)).item()


def test_split_holds_out_the_same_quarter() -> None:
    samples, labels = np.arange(40.0).reshape(20, 2), np.arange(20)
    first, again = (split("x", "here", samples, labels, ("a",), seed=4) for _ in range(2))
    assert first.sha256 == again.sha256
    assert len(first.test) == 5
    assert sorted([*first.train_labels, *first.test_labels]) == list(range(20))
    assert split("x", "here", samples, labels, ("a",), seed=5).sha256 != first.sha256


def test_an_absent_registry_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "CACHE", tmp_path)
    command = (sys.executable, "-c", "import sys; sys.exit('Error: no route')")
    with pytest.raises(packages.DataUnavailableError, match=r"no route.*put the file into"):
        packages.package("thing", command, "thing-*.tgz", None)


def test_a_package_of_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "CACHE", tmp_path)
    command = (sys.executable, "-c", "open('thing-1.tgz', 'w').write('x')")
    assert packages.package("thing", command, "thing-*.tgz", None).read_text() == "x"
    with pytest.raises(packages.DataUnavailableError, match="remove it"):
        packages.package("thing", command, "thing-*.tgz", "0" * 64)


def test_words_are_cut_as_bert_cuts_them() -> None:
    assert list(words("Don't  Naïve\t漢字!")) == ["don", "'", "t", "naive", "漢", "字", "!"]
    pieces = WordPieces(["[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##s", "no"])
    assert pieces.encode("Playing plays no xyz", 9) == [1, 3, 4, 3, 5, 6, 0, 2]
    assert pieces.encode("no no no no", 4) == [1, 6, 6, 2]
