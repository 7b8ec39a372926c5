"""What a worker keeps decoded: made once for all who wait, the least recently used first to go."""

from __future__ import annotations

import asyncio

import pytest

from lattice.core.errors import LatticeError
from lattice.runtime.worker.memory import Memory


class Maker:
    """Counts what is made; each thing is as large as it is told."""

    def __init__(self, memory: Memory[str]) -> None:
        self.memory, self.made = memory, list[str]()

    async def get(self, name: str, size: int = 10) -> str:
        async def make() -> tuple[str, int]:
            self.made.append(name)
            await asyncio.sleep(0)
            return name.upper(), size

        return await self.memory.get(name, make)


async def test_a_thing_is_made_once_for_all_who_wait() -> None:
    maker = Maker(Memory(100))
    assert await asyncio.gather(*(maker.get("a") for _ in range(5))) == ["A"] * 5
    assert maker.made == ["a"]


async def test_the_least_recently_used_goes_first_and_comes_back_when_it_is_asked_for() -> None:
    maker = Maker(Memory(25))
    for name in ("a", "b", "a", "c"):
        await maker.get(name)
    assert maker.memory.hashes == ("a", "c")
    await maker.get("b")
    assert maker.made == ["a", "b", "c", "b"]
    assert maker.memory.hashes == ("c", "b")


async def test_one_that_is_larger_than_all_room_is_kept_alone() -> None:
    maker = Maker(Memory(25))
    await maker.get("a")
    assert await maker.get("huge", 1000) == "HUGE"
    assert maker.memory.hashes == ("huge",)
    await maker.get("a")
    assert maker.memory.hashes == ("a",)


async def test_a_failure_is_not_remembered() -> None:
    memory: Memory[str] = Memory(25)

    async def fail() -> tuple[str, int]:
        raise LatticeError("blob_invalid")

    with pytest.raises(LatticeError):
        await memory.get("a", fail)
    assert await Maker(memory).get("a") == "A"
