"""Looks for a secret polynomial, in every form that it could take, in the memory of processes and in files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.modulus import reduce_signed
from lattice.fhe.serialise.bits import pack
from tests.support.fhe import small

_B = ReferenceBackend()


class Region(NamedTuple):
    """A writable part of a process."""

    start: int
    end: int
    name: str
    flags: frozenset[str]


def regions(pid: int) -> list[Region]:
    """All that is readable and writable, with the kernel's flags."""
    found: list[Region] = []
    head: tuple[int, int, str] | None = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)", line):
            start, end, rights, name = match.groups()
            head = (int(start, 16), int(end, 16), name) if rights.startswith("rw") else None
        elif line.startswith("VmFlags:") and head:
            found.append(Region(*head, frozenset(line.split()[1:])))
    return found


def fingerprints(words: np.ndarray) -> np.ndarray:
    """One number for every eight consecutive words."""
    count = len(words) - 7
    out = np.zeros(max(count, 0), dtype=np.uint64)
    for j in range(8):
        out += words[j : j + len(out)] * np.uint64(0x9E3779B97F4A7C15 + 2 * 0x1234567 * j)
    return out ^ out >> np.uint64(29)


def find(pid: int, needles: dict[str, bytes]) -> dict[str, list[Region]]:
    """Where each needle lies; all of them begin at whole words, as everything that we look for does in memory."""
    names: dict[int, list[str]] = {}
    for name, needle in needles.items():
        names.setdefault(int(fingerprints(np.frombuffer(needle[:64], dtype=np.uint64))[0]), []).append(name)
    likely = np.zeros(1 << 16, dtype=bool)
    likely[[mark & 0xFFFF for mark in names]] = True
    hits: dict[str, list[Region]] = {}
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for region in regions(pid):
            memory.seek(region.start)
            data = bytearray()
            while len(data) < region.end - region.start:
                data += memory.read(min(1 << 24, region.end - region.start - len(data)))
            marks = fingerprints(np.frombuffer(data, dtype=np.uint64))
            for at in np.flatnonzero(likely[marks & np.uint64(0xFFFF)]):
                for name in names.get(int(marks[at]), []):
                    if data.startswith(needles[name], 8 * at):
                        hits.setdefault(name, []).append(region)
    return hits


def forms(name: str, poly: np.ndarray, *, packed: bool = False) -> dict[str, bytes]:
    """A small polynomial as bytes, as integers, as residues and as transforms: a cache line's worth of each."""
    moduli = small().primes()
    at = slice(64, 128)
    out = {
        f"{name} as bytes": poly[at].astype(np.int8).tobytes(),
        f"{name} as integers": poly[at].astype(np.int64).tobytes(),
    }
    if packed:
        fields = (poly + 1).astype(np.uint8).reshape(-1, 4) << np.arange(0, 8, 2, dtype=np.uint8)
        out[f"{name} packed"] = fields.sum(axis=1, dtype=np.uint8)[at].tobytes()
    residues = reduce_signed(poly, moduli)
    evaluations = _B.ntt(residues, moduli, small().n)
    for q, small_limb, limb in zip(moduli, residues, evaluations, strict=True):
        out[f"{name} modulo {q}"] = small_limb[at].tobytes()
        for start in (0, 1000, len(limb) - 8):
            out[f"{name} transformed modulo {q} at {start}"] = limb[start : start + 8].tobytes()
    return out


def secret_forms(secret: SecretKey) -> dict[str, bytes]:
    """Of a key over `small()`: those of `forms`, and the residues and their transforms as the wire packs them."""
    poly = secret.coefficients().astype(np.int64)
    out = forms("s", poly, packed=True)
    moduli = small().primes()
    residues = reduce_signed(poly, moduli)
    for kind, values in (("residues", residues), ("transforms", _B.ntt(residues, moduli, small().n))):
        for number in range(len(moduli)):
            limb = pack(values[number : number + 1], moduli[number : number + 1])
            out[f"s as packed {kind} {number}"] = limb[256:320]
    return out


def found_in_files(folder: Path, needles: dict[str, bytes]) -> dict[str, list[Path]]:
    """Which needle lies in which file below the folder, at whatever byte."""
    hits: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            for name, needle in needles.items():
                if needle in data:
                    hits.setdefault(name, []).append(path)
    return hits
