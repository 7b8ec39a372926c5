"""Layers that follow each other become one, where that does not raise the count of entries much."""

from __future__ import annotations

from lattice.fhe.compiler.graph import Graph, Node, Shape
from lattice.fhe.compiler.operations import (
    Affine,
    AveragePool,
    Convolution,
    Dense,
    Difference,
    Linear,
    Matrix,
    Permute,
    Reshape,
    Sparse,
    Sum,
)
from lattice.fhe.compiler.operations.sizes import size
from lattice.fhe.compiler.passes.edit import Edit
from lattice.fhe.compiler.passes.fold import convolved, folded, pooled

GROWTH = 1.25
"""Entries of a merged layer, over those of both, that are still worth the level saved."""
PRODUCTS = ENTRIES = 1 << 25
"""Products of entries that merging may take, and entries of a layer that it may write out: some seconds."""
FULL = 0.5
"""Entries over size from which on a layer is written as `Dense`."""


def merge(graph: Graph) -> tuple[Graph, bool]:
    """The graph, and whether anything changed."""
    edit = Edit(graph)
    for node in edit.walk():
        if isinstance(node.operation, Linear):
            _layer(edit, node, node.operation)
        elif not isinstance(node.operation, Sum | Difference) or not _added(edit, node):
            edit.keep(node)
    return edit.done(), edit.changed


def _layer(edit: Edit, node: Node, operation: Linear) -> None:
    (source,) = node.inputs
    if nothing(operation, edit.shape(source)):
        edit.stand(node.name, source)
        return
    before = edit.nodes.get(source)
    alone = edit.only_reader(source)
    joined = None
    if before is not None and isinstance(before.operation, Linear) and (alone or _light(before.operation)):
        joined = joint(before.operation, operation, edit.shape(before.inputs[0]), edit.shape(source))
    if before is None or joined is None:
        edit.keep(node)
    elif not alone:
        edit.put(node.name, joined, *before.inputs)
        edit.changed = True
    else:
        edit.drop(source)
        # The report names layers after the node that has the weights.
        name = source if _light(operation) and not _light(before.operation) else node.name
        edit.put(name, joined, *before.inputs)
        edit.stand(node.name, name)
        edit.changed = True


def nothing(operation: object, shape: Shape) -> bool:
    """Whether a layer leaves its input as it is."""
    if isinstance(operation, Affine):
        return operation.shape(shape) == shape and bool((operation.scale == 1).all() and (operation.shift == 0).all())
    if isinstance(operation, Permute):
        return operation.axes == tuple(range(len(shape)))
    return isinstance(operation, Reshape) and operation.output == shape


def joint(first: Linear, second: Linear, shape: Shape, between: Shape) -> Linear | None:
    """One layer for two, or None where it would have too many entries. `shape` goes into the first one."""
    kept = folded(first, second, shape, between)
    if kept is not None:
        return kept
    if isinstance(first, AveragePool) and isinstance(second, Convolution):
        kept = pooled(first, second, shape)
    elif isinstance(first, Convolution) and isinstance(second, AveragePool):
        kept = convolved(first, second, shape, between)
    if kept is not None:
        return kept
    if max(written(first, shape), written(second, between)) > ENTRIES:
        return None
    inner, outer = first.matrix(shape), second.matrix(between)
    always = _light(second) or isinstance(first, AveragePool) or _gathers(first, inner)
    if outer.products(inner) > PRODUCTS:
        return None
    merged = outer.after(inner)
    if not always and merged.entries > GROWTH * (inner.entries + outer.entries):
        return None
    return layer(merged, second.shape(between))


def written(operation: Linear, shape: Shape) -> int:
    """Entries of a layer's matrix, at most, without writing it."""
    if isinstance(operation, Convolution):
        return size(operation.shape(shape)) * int(operation.weight[0].size)
    if isinstance(operation, AveragePool):
        return size(operation.shape(shape)) * size(operation.kernel)
    if isinstance(operation, Dense):
        return int(operation.weight.size)
    return operation.sparse.entries if isinstance(operation, Matrix) else size(operation.shape(shape))


def layer(sparse: Sparse, shape: Shape) -> Linear:
    """As `Dense` where most entries are there, as `Matrix` otherwise."""
    full = sparse.entries > FULL * sparse.outputs * sparse.inputs
    return Dense.of(sparse) if full and len(shape) == 1 else Matrix(sparse, shape)


def _light(operation: object) -> bool:
    """At most one entry for each output."""
    if isinstance(operation, Matrix):
        return operation.sparse.entries <= operation.sparse.outputs
    return isinstance(operation, Affine | Permute | Reshape)


def _gathers(operation: Linear, sparse: Sparse) -> bool:
    """Whether no input goes into two outputs: layout, scaling, pooling without overlap."""
    return not isinstance(operation, Dense | Convolution) and sparse.entries <= sparse.inputs


def _added(edit: Edit, node: Node) -> bool:
    """Two layers that read the same value and are added become one; so does a layer that its own input is added to."""
    if node.inputs[0] == node.inputs[1]:
        return False
    left, right = (edit.maker(name) for name in node.inputs)
    sources = [_source(maker, name) for maker, name in zip((left, right), node.inputs, strict=True)]
    candidates = [
        (left, right, sources[0] is not None and sources[0] == sources[1]),
        (left, None, sources[0] == node.inputs[1]),
        (None, right, node.inputs[0] == sources[1]),
    ]
    for one, other, fits in candidates:
        makers = [maker for maker in (one, other) if maker is not None]
        if fits and makers and len(makers) == (one is not None) + (other is not None):
            return _sum(edit, node, one, other)
    return False


def _source(maker: Node | None, name: str) -> str | None:
    return maker.inputs[0] if maker is not None and isinstance(maker.operation, Linear) else None


def _sum(edit: Edit, node: Node, left: Node | None, right: Node | None) -> bool:
    some = left or right
    assert some is not None
    source = some.inputs[0]
    shape, out = edit.shape(source), edit.shape(node.inputs[0])
    if (left is None or right is None) and shape != out:
        return False
    if any(isinstance(m.operation, Linear) and written(m.operation, shape) > ENTRIES for m in (left, right) if m):
        return False
    matrices = []
    for maker in (left, right):
        operation = Reshape(shape) if maker is None else maker.operation
        assert isinstance(operation, Linear)
        matrices.append(operation.matrix(shape))
    second = matrices[1].scaled(-1.0) if isinstance(node.operation, Difference) else matrices[1]
    for maker in (left, right):
        if maker is not None:
            edit.drop(maker.name)
    edit.put(node.name, layer(matrices[0].plus(second), out), source)
    return True
