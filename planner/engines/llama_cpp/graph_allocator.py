"""Bytes of a compute buffer: a graph of tensors, placed as ggml's graph allocator places them.

llama.cpp takes one buffer for all intermediate tensors of a forward pass. Its size follows from the
graph alone (ggml/src/ggml-alloc.c): graph inputs are placed first; every node is placed where its
last parent ends if the operation may work in place, else in the smallest free block that holds it;
a tensor's block is free after its last reader. The size is the highest end that occurs.

Tensors are written down as ggml sees them: shapes of four, fastest axis first. Weights and the KV
cache live elsewhere and are not part of a graph here.
"""

from collections.abc import Sequence
from math import prod

IN_PLACE = frozenset(
    {"scale", "add", "add_id", "sub", "mul", "div", "sqr", "unary", "rope", "rms_norm", "clamp"}
    | {"soft_max"}
)
"""Operations that may overwrite a parent of the same layout (ggml_op_can_inplace)."""

Shape = tuple[int, int, int, int]


class Tensor:
    """One node or leaf. `base`: the tensor whose bytes a view shows; `strides` in bytes."""

    __slots__ = (
        "base",
        "children",
        "item",
        "nbytes",
        "offset",
        "op",
        "output",
        "owned",
        "shape",
        "sources",
        "strides",
        "views",
    )

    def __init__(
        self,
        op: str,
        shape: Sequence[int],
        sources: Sequence["Tensor"] = (),
        *,
        item: int = 4,
        base: "Tensor | None" = None,
        strides: Shape | None = None,
    ) -> None:
        self.op = op
        self.shape: Shape = (*shape, *(1,) * (4 - len(shape)))  # type: ignore[assignment]
        self.item = item
        self.sources = tuple(sources)
        self.base: Tensor | None = None if base is None else base.base or base
        a, b, c, _ = self.shape
        self.strides = strides or (item, item * a, item * a * b, item * a * b * c)
        self.nbytes = item * prod(self.shape)
        self.output = False
        self.offset = self.children = self.views = 0
        self.owned = False


class Graph:
    """Nodes in the order of execution, and leaves, as ggml_build_forward_expand orders them."""

    def __init__(self) -> None:
        self.nodes: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self._seen: set[Tensor] = set()

    def expand(self, tensor: Tensor) -> None:
        """Add `tensor` behind all that it reads."""
        if tensor in self._seen:
            return
        self._seen.add(tensor)
        for source in tensor.sources:
            self.expand(source)
        (self.nodes if tensor.op != "input" else self.leaves).append(tensor)


class _Blocks:
    """Free blocks by offset; the last is without end."""

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._free: list[list[int]] = [[0, 2**62]]
        self.size = 0

    def round(self, size: int) -> int:
        return -(-size // self._alignment) * self._alignment

    def take(self, size: int) -> int:
        size = self.round(size)
        fitting = [(b[1], -i) for i, b in enumerate(self._free[:-1]) if b[1] >= size]
        index = -min(fitting)[1] if fitting else len(self._free) - 1
        block = self._free[index]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if not block[1]:
            del self._free[index]
        self.size = max(self.size, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        size = self.round(size)
        index = next(i for i, block in enumerate(self._free) if block[0] > offset)
        before = self._free[index - 1] if index else None
        after = self._free[index]
        joins = offset + size == after[0]
        if before is not None and before[0] + before[1] == offset:
            before[1] += size
            if joins:
                before[1] += after[1]
                del self._free[index]
        elif joins:
            after[0], after[1] = offset, after[1] + size
        else:
            self._free.insert(index, [offset, size])


def buffer_bytes(graph: Graph, alignment: int = 32) -> int:
    """Bytes of the buffer that holds the graph's tensors; `alignment` as the backend's buffers have
    it (32 on the CPU and Metal, 128 with CUDA)."""
    blocks = _Blocks(alignment)

    def place(tensor: Tensor) -> None:
        if tensor.owned or tensor.base is not None:
            return
        tensor.owned = True
        if tensor.op in IN_PLACE:
            for parent in tensor.sources:
                same = (parent.shape, parent.item, parent.strides)
                if not parent.owned or parent.output or parent.children != 1 or parent.views:
                    continue
                if (tensor.shape, tensor.item, tensor.strides) == same:
                    tensor.offset = parent.offset
                    parent.owned = False
                    return
        tensor.offset = blocks.take(tensor.nbytes)

    def free(tensor: Tensor) -> None:
        if not tensor.output:
            blocks.give(tensor.offset, tensor.nbytes)
            tensor.owned = False

    for leaf in graph.leaves:
        place(leaf)
    for node in graph.nodes:
        if node.base is not None:
            node.base.views += 1
        for source in node.sources:
            source.children += 1
    for node in graph.nodes:
        place(node)
        for parent in node.sources:
            parent.children -= 1
            if parent.children or parent.views:
                continue
            root = parent.base
            if root is not None:
                root.views -= 1
                if not root.views and not root.children and root.owned:
                    free(root)
            elif parent.owned:
                free(parent)
    return blocks.size
