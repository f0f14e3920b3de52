"""The nodes that llama.cpp's graphs are made of, as ggml's functions make them."""

from collections.abc import Sequence

from ...models.spec import Attention
from .graph_allocator import Tensor


def graph_input(*shape: int, item: int = 4) -> Tensor:
    return Tensor("input", shape, item=item)


def view(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The same bytes, contiguous, in another shape."""
    return Tensor("view", shape, [tensor], base=tensor)


def strided(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A view that is not contiguous; nothing works in place on it."""
    return Tensor("view", shape, [tensor], base=tensor, strides=(4, 1, 1, 1))


def matmul(rows: int, tensor: Tensor) -> Tensor:
    """A weight matrix of `rows` outputs times `tensor`."""
    return Tensor("mul_mat", (rows, *tensor.shape[1:]), [tensor])


def normalized(tensor: Tensor) -> Tensor:
    normed = Tensor("rms_norm", tensor.shape, [tensor])
    return Tensor("mul", tensor.shape, [normed])


def binary(op: str, one: Tensor, other: Tensor) -> Tensor:
    return Tensor(op, one.shape, [one, other])


def scaled(tensor: Tensor) -> Tensor:
    return Tensor("scale", tensor.shape, [tensor])


def activated(tensor: Tensor) -> Tensor:
    return Tensor("unary", tensor.shape, [tensor])


def picked_rows(width: int, ids: Tensor, tensor: Tensor) -> Tensor:
    return Tensor("get_rows", (width, ids.shape[0]), [tensor, ids])


def rotated(tensor: Tensor, positions: Tensor, mixer: Attention, turns: bool = True) -> Tensor:
    """Normed where heads are, and turned by RoPE where the model does."""
    if mixer.qk_norm:
        tensor = normalized(tensor)
    if not (mixer.rope and turns):
        return tensor
    return Tensor("rope", tensor.shape, [tensor, positions])


def hadamard(tensor: Tensor, rotation: Tensor) -> Tensor:
    """Blocks of channels times a Hadamard matrix."""
    width = rotation.shape[0]
    a, b, c, d = tensor.shape
    flat = view(tensor, (width, a * b * c * d // width))
    turned = Tensor("mul_mat", flat.shape, [rotation, flat])
    return view(turned, tensor.shape)


def kept_until_here(*tensors: Tensor) -> Tensor:
    """A node without bytes that reads `tensors`: none of them is free before it."""
    node = Tensor("keep", (1,), tensors)
    node.nbytes = 0
    return node


def stored(tensor: Tensor, *ids: Tensor) -> Tensor:
    """Rows written into the cache, which is not of this buffer."""
    stored = Tensor("set_rows", (1,), [tensor, *ids])
    stored.nbytes = 0
    return stored
