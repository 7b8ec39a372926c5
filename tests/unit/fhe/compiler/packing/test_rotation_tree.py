"""A rotation tree makes every rotation once, from the keys that it asks for and within the budget."""

from __future__ import annotations

import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.packing.rotation_tree import Tree, emit, plan_tree
from lattice.fhe.hal import instructions as ops


@pytest.mark.parametrize("count", [1, 2, 8, 128, 512])
@pytest.mark.parametrize("budget", [9, 22, 600])
def test_every_rotation_is_made_once(count: int, budget: int) -> None:
    tree = plan_tree(count, budget)
    steps: list[ops.Instruction] = []
    registers, free = emit(tree, 0, steps, 1)
    turned = {0: 0}
    for step in steps:
        assert isinstance(step, ops.RotateHoisted)
        assert set(step.steps) <= set(tree.steps)
        turned |= {out: turned[step.a] + turn for out, turn in zip(step.outs, step.steps, strict=True)}
    assert [turned[register] for register in registers] == list(range(count))
    assert free == count
    assert len(tree.steps) <= budget
    assert len(steps) == tree.decompositions


def test_more_keys_mean_fewer_decompositions() -> None:
    assert plan_tree(128, 127).radices == (128,)
    assert plan_tree(128, 22) == Tree((8, 16))
    assert plan_tree(128, 7).radices == (2,) * 7
    with pytest.raises(LatticeError, match="7 keys"):
        plan_tree(128, 6)
