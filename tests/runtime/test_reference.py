"""The reference cache: what it holds, what attention sees, and what chunking may change."""

import pytest
import torch
from torch import Tensor

from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat
from kvpareto.planner.models.spec import Indexer, LatentAttention, Layer
from kvpareto.runtime.attention import append, attend
from kvpareto.runtime.cache.kv_cache import PackedCache
from kvpareto.runtime.cache.quantize import dequantize, quantize
from kvpareto.runtime.cache.rotation import rotate, rotate_back, rotation
from kvpareto.runtime.reference import read
from tests.support.runtime_builders import FORMATS, attention_spec, poisoned_cache, relative_error

# Formats whose cache depends on nothing but the token itself.
STREAMING = [t for t in FORMATS if "-kc" not in t and "-p" not in t and "res" not in t]


def qkv(
    tokens: int, *, batch: int = 2, heads: int = 2, query_heads: int = 4, dim: int = 64
) -> tuple[Tensor, Tensor, Tensor]:
    make = torch.Generator().manual_seed(11)
    query = torch.randn(batch, query_heads, tokens, dim, generator=make)
    key = torch.randn(batch, heads, tokens, dim, generator=make) + 2 * torch.randn(
        1, heads, 1, dim, generator=make
    )
    return query, key, torch.randn(batch, heads, tokens, dim, generator=make)


def run(cache: PackedCache, query: Tensor, key: Tensor, value: Tensor, chunk: int) -> Tensor:
    """Feed layer 0 in chunks; the attention outputs of all tokens."""
    found = []
    for i in range(0, query.shape[2], chunk):
        cache.update(key[:, :, i : i + chunk], value[:, :, i : i + chunk], 0)
        part = query[:, :, i : i + chunk]
        found.append(attend(part, cache.states[0], scaling=query.shape[-1] ** -0.5))
    return torch.cat(found, dim=2)


def naive(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Full-matrix causal attention, written independently of the reference."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query.double() @ key.double().transpose(-1, -2) * query.shape[-1] ** -0.5
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    n = query.shape[2]
    for i in range(n):
        for j in range(n):
            if j > i or (window is not None and j <= i - window):
                scores[:, :, i, j] = -torch.inf
    if sinks is not None:
        extra = sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        return torch.cat((scores, extra), -1).softmax(-1)[..., :n] @ value.double()
    return scores.softmax(-1) @ value.double()


@pytest.mark.parametrize("window", [None, 1, 7, 40], ids="window={}".format)
@pytest.mark.parametrize("chunk", [1, 17, 64], ids="chunk={}".format)
def test_sixteen_bits_equal_plain_attention(chunk: int, window: int | None) -> None:
    query, key, value = (x.bfloat16().float() for x in qkv(67, dim=80))
    spec = attention_spec(1, dim=80, windows=(window,))
    cache = poisoned_cache(spec, "w16a16-k16v16+pc64", tokens=67, batch=2)
    found = run(cache, query, key, value, chunk)
    assert relative_error(found, naive(query, key, value, window=window)) < 1e-6


def test_softcap_and_sink_logits() -> None:
    query, key, value = (x.bfloat16().float() for x in qkv(19))
    cache = poisoned_cache(attention_spec(1), "w16a16-k16v16", tokens=19, batch=2)
    cache.update(key, value, 0)
    sinks = torch.tensor([0.0, 2.0, -1.0, 9.0])
    found = attend(query, cache.states[0], scaling=0.125, softcap=3.0, sinks=sinks)
    expected = naive(query, key, value, softcap=3.0, sinks=sinks)
    assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("window", [None, 40], ids="window={}".format)
def test_attention_sees_what_the_cache_holds(text: str, window: int | None) -> None:
    query, key, value = qkv(150)
    spec = attention_spec(1, windows=(window,))
    cache = poisoned_cache(spec, text + "+pc64", tokens=150, batch=2)
    cache.update(key[:, :, :64], value[:, :, :64], 0)
    cache.update(key[:, :, 64:128], value[:, :, 64:128], 0)
    state = cache.states[0]
    found = attend(query[:, :, 64:128], state, scaling=0.125)
    first = max(state.key.oldest(128), state.value.oldest(128))
    held_key, held_value = read(state.key, first, 128), read(state.value, first, 128)
    if state.rotated:
        held_key, held_value = rotate_back(held_key), rotate_back(held_value)
    pad = (0, 0, first, 0)
    held_key = torch.nn.functional.pad(held_key, pad)
    held_value = torch.nn.functional.pad(held_value, pad)
    assert first == 0 or window is not None
    expected = naive(
        torch.nn.functional.pad(query[:, :, 64:128], (0, 0, 64, 0)), held_key, held_value,
        window=window,
    )[:, :, 64:]  # fmt: skip
    assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("text", ["w16a16-k4v4-g32", "w16a16-k2v2-kc", "w16a16-k8v2-pb16-g32"])
def test_what_is_held_is_quantized_once(text: str) -> None:
    _, key, value = qkv(96)
    cache = poisoned_cache(attention_spec(1), text, tokens=96, batch=2)
    for i in range(0, 96, 8):
        cache.update(key[:, :, i : i + 8], value[:, :, i : i + 8], 0)
    for side, x in ((cache.states[0].key, key), (cache.states[0].value, value)):
        expected = dequantize(*quantize(x.bfloat16(), side.form), side.form)
        assert torch.equal(read(side, 0, 96), expected)


@pytest.mark.parametrize("text", STREAMING)
@pytest.mark.parametrize("chunk", [64, 100], ids="chunk={}".format)
def test_streaming_formats_give_the_same_cache_for_every_chunking(text: str, chunk: int) -> None:
    query, key, value = qkv(150)
    one = poisoned_cache(attention_spec(1), text, tokens=150, batch=2)
    many = poisoned_cache(attention_spec(1), text, tokens=150, batch=2)
    out_one, out_many = run(one, query, key, value, 150), run(many, query, key, value, chunk)
    for left, right in zip(one.states[0].key.tensors(), many.states[0].key.tensors(), strict=True):
        assert torch.equal(left, right)
    assert relative_error(out_many, out_one) < 1e-6


@pytest.mark.parametrize("text", ["w16a16-k4v4-kc+res32", "w16a16-k2v2-pb16-g32+sink3"])
def test_block_formats_hold_the_same_in_the_end(text: str) -> None:
    # chunking changes what a token saw on the way, never what is stored for given keys
    query, key, value = qkv(150)
    caches = []
    for chunk in (150, 64, 1):
        cache = poisoned_cache(attention_spec(1), text, tokens=150, batch=2)
        run(cache, query, key, value, chunk)
        caches.append(cache)
    for other in caches[1:]:
        assert torch.equal(read(other.states[0].key, 0, 150), read(caches[0].states[0].key, 0, 150))


def test_residual_window_and_sinks_stay_in_sixteen_bits() -> None:
    _, key, value = qkv(100)
    text = "w16a16-k2v2-kc+res20+sink3"
    cache = poisoned_cache(attention_spec(1), text, tokens=100, batch=2)
    cache.update(key, value, 0)
    # keys: 100 - 3 sinks - 20 recent = 77 settled, whole blocks of 32: 64 packed, 33 in 16 bits
    side = cache.states[0].key
    held = read(side, 0, 100)
    exact = key.bfloat16().float()
    assert side.packed_end(100) == 67
    assert torch.equal(held[:, :, :3], exact[:, :, :3])
    assert torch.equal(held[:, :, 67:], exact[:, :, 67:])
    assert not torch.equal(held[:, :, 3:67], exact[:, :, 3:67])


def test_smoothing_is_invisible_to_softmax() -> None:
    # 8-bit keys with a large common offset: smoothed or not, attention is that of the keys
    query, key, value = qkv(130)
    key = key + 50
    plain = naive(query, key, value)
    errors = {}
    for text in ("w16a16-k8v16", "w16a16-k8v16+smooth"):
        cache = poisoned_cache(attention_spec(1), text, tokens=130, batch=2)
        errors[text] = relative_error(run(cache, query, key, value, 65), plain)
    assert errors["w16a16-k8v16+smooth"] < 0.02 < errors["w16a16-k8v16"]


def test_smoothing_takes_the_first_64_real_tokens() -> None:
    _, key, value = qkv(100)
    cache = poisoned_cache(attention_spec(1), "w16a16-k4v4+smooth", tokens=100, batch=2)
    cache.pad_left(torch.tensor([0, 10]))
    cache.update(key, value, 0)
    mean = cache.states[0].key.mean
    assert mean is not None
    torch.testing.assert_close(mean[0], key[0, :, :64].mean(1))
    torch.testing.assert_close(mean[1], key[1, :, 10:74].mean(1))


@pytest.mark.parametrize("dim", [8, 64, 80, 96, 128, 256])
def test_rotation_is_orthogonal_and_spreads_a_single_channel(dim: int) -> None:
    matrix = rotation(dim, torch.float64, torch.device("cpu"))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(dim, dtype=torch.float64))
    # an outlier in one channel is at most sqrt(2/D) of itself in any: 1/sqrt(2^a) * sqrt(2/m)
    assert float(matrix.abs().max()) <= (2 / dim) ** 0.5 + 1e-12
    x = torch.randn(3, 5, dim)
    torch.testing.assert_close(rotate_back(rotate(x)), x)


def test_rotation_saves_keys_with_one_loud_channel() -> None:
    query, key, value = qkv(64)
    key[..., 5] *= 40
    query[..., 5] /= 40
    errors = {}
    for text in ("w16a16-k4v16", "w16a16-k4v16+rot"):
        cache = poisoned_cache(attention_spec(1), text, tokens=64, batch=2)
        errors[text] = relative_error(run(cache, query, key, value, 64), naive(query, key, value))
    assert errors["w16a16-k4v16+rot"] < 0.8 * errors["w16a16-k4v16"]


def test_protected_layers_keep_their_own_bits() -> None:
    text = "w16a16-k2v2-g32+protect{1}:k8v16"
    cache = PackedCache(attention_spec(3), Configuration.parse(text), tokens=10)
    assert [s.key.form.bits for s in cache.states] == [2, 8, 2]
    assert [s.value.form.bits for s in cache.states] == [2, 16, 2]


@pytest.mark.parametrize("text", ["w16a16-k16v16", "w16a16-k4v4-g32", "w16a16-k4v2-g32+smooth"])
def test_left_padded_sequence_attends_as_if_alone(text: str) -> None:
    query, key, value = qkv(90, batch=1)
    alone = poisoned_cache(attention_spec(1), text, tokens=90)
    expected = run(alone, query, key, value, 90)
    noise = torch.randn(1, 2, 13, 64) * 100
    wide = torch.randn(1, 4, 13, 64)
    padded = tuple(
        torch.cat((torch.cat((pad, x), 2), torch.roll(torch.cat((pad, x), 2), 5, 2)))
        for pad, x in ((wide, query), (noise, key), (noise, value))
    )
    cache = poisoned_cache(attention_spec(1), text, tokens=103, batch=2)
    cache.pad_left(torch.tensor([13, 0]))
    found = run(cache, padded[0], padded[1], padded[2], 103)
    assert relative_error(found[:1, :, 13:], expected) < 1e-6
    assert bool((found[0, :, :13] == 0).all())  # padding sees nothing and stays finite


def test_appending_twice_gives_the_same_bytes() -> None:
    _, key, value = qkv(70)
    caches = [poisoned_cache(attention_spec(1), "w16a16-k4v2-g32", tokens=70, batch=2)] * 2
    kept = []
    for cache in caches:
        cache.reset()
        append_all(cache, key, value)
        kept.append([t.clone() for t in cache.states[0].key.tensors()])
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))


def append_all(cache: PackedCache, key: Tensor, value: Tensor) -> None:
    cache.clock.advance(key.shape[2])
    append(cache.states[0], key, value)


def test_dynamic_chunks_bound_what_a_sliding_layer_holds() -> None:
    config = Configuration.parse("w16a16-k4v4-g32+pcdyn")
    spec = attention_spec(1, dim=32, windows=(100,))
    cache = PackedCache(spec, config, tokens=10_000)
    assert cache.states[0].key.values.shape[2] == 100 - 1 + 8192


def test_a_window_that_the_cache_does_not_outgrow_is_none() -> None:
    spec = attention_spec(2, windows=(40, None))
    for tokens, window in ((40, None), (41, 40)):
        cache = PackedCache(spec, Configuration.parse("w16a16-k4v4"), tokens=tokens)
        assert [state.window for state in cache.states] == [window, None]


def test_refusals_are_one_line() -> None:
    spec = attention_spec(1)
    cache = PackedCache(spec, Configuration.parse("w16a16-k4v4"), tokens=8)
    with pytest.raises(BadInput, match="9 tokens do not fit a cache of 8"):
        cache.update(torch.zeros(1, 2, 9, 64), torch.zeros(1, 2, 9, 64), 0)
    with pytest.raises(BadInput, match="do not fit a cache of 1 x 2 heads x 64"):
        cache.update(torch.zeros(1, 3, 1, 64), torch.zeros(1, 3, 1, 64), 0)
    indexed = LatentAttention(4, None, 16, 8, 8, 8, indexer=Indexer(2, 8, 16))
    latent = Layer((indexed,), None)
    with pytest.raises(BadInput, match="layer 0 of this x keeps no plain KV cache"):
        PackedCache(type(spec)("mla", "x", 8, 8, None, (latent,), ()), Configuration(), tokens=8)
    handle, _ = cache.update(torch.zeros(1, 2, 1, 64), torch.zeros(1, 2, 1, 64), 0)
    with pytest.raises(BadInput, match="after the cache update"):
        handle.shape  # noqa: B018
    with pytest.raises(BadInput, match="after the cache update \\(chunk\\)"):
        torch.chunk(handle, 2)
    assert handle.to(torch.device("cpu")) is handle  # where it is already
    with pytest.raises(BadInput, match="to meta"):
        handle.to("meta")


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("window", [None, 33], ids="window={}".format)
@pytest.mark.parametrize(("batch", "tokens"), [(1, 200), (3, 77), (2, 5)])
def test_buffers_are_the_planners_to_the_byte(
    text: str, window: int | None, batch: int, tokens: int
) -> None:
    config = Configuration.parse(text + "+pc16")
    cache = PackedCache(
        attention_spec(2, dim=80, windows=(None, window)), config, tokens=tokens, batch=batch
    )
    expected = 0
    for layer, limit in enumerate((None, window)):
        form = KVFormat.of(config, layer)
        held = form.capacity(limit, tokens, 16)
        expected += form.nbytes(batch, 2, 80, 80, held)
    assert cache.nbytes == expected
