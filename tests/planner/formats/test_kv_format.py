"""KV formats against bytes derived by hand: 8 KV heads of 128 channels, as Llama-3.1-8B has."""

import pytest

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat, window_capacity


def layer_bytes(text: str, tokens: int, *, batch: int = 1, dim: int = 128, heads: int = 8) -> int:
    format_ = KVFormat.of(Configuration.parse(text), layer=0)
    return format_.nbytes(batch, heads, dim, dim, tokens)


@pytest.mark.parametrize(
    ("text", "bits_per_value"),
    [
        ("w16a16-k16v16", 16.0),
        ("w16a16-k8v8-g32", 9.0),  # 8 + (16 + 16) / 32
        ("w16a16-k4v4-g32", 5.0),
        ("w16a16-k4v4-g64", 4.5),
        ("w16a16-k4v4-g128", 4.25),
        ("w16a16-k4v4", 4.25),  # one group a head of 128
        ("w16a16-k2v2-g32", 3.0),
        ("w16a16-k2v2-g64", 2.5),
        ("w16a16-k4v2-g64", 3.5),
        ("w16a16-k6v5-g64", 6.0),
        ("w16a16-k3v3", 3.25),
        ("w16a16-kfp8vfp8", 8.25),
        ("w16a16-knf4vlloyd2-g128", 3.25),
        ("w16a16-klloyd3vlloyd3-g32", 4.0),
        ("w16a16-kmxfp4vmxfp4", 4.25),
        ("w16a16-k2vmxfp4-g64", 3.375),
    ],
)
def test_scales_and_offsets_are_counted(text: str, bits_per_value: float) -> None:
    values = 2 * 8 * 128 * 1000
    assert layer_bytes(text, 1000) == values * bits_per_value / 8


def test_nvfp4_keeps_a_float_a_head_beside_its_blocks() -> None:
    # 128 codes of half a byte and 8 scales of a byte: 4.5 bits a value; 8 heads on both sides
    assert layer_bytes("w16a16-knvfp4vnvfp4", 1000) == 2 * 8 * (1000 * (64 + 8) + 4)
    # keys: codes, 32 blocks of pairs a channel, the block being filled; values as above
    keys = 1024 * 64 + 32 * 128 * 4 + 32 * 128 * 2
    assert layer_bytes("w16a16-k4vnvfp4-kc", 1024) == 8 * (keys + 1024 * (64 + 8) + 4)


def test_blocks_are_their_own_groups_and_stream() -> None:
    form = KVFormat.of(Configuration.parse("w16a16-k4vmxfp4-kc64+protect{1}:k8v8"), 0)
    assert (form.value.group_size, form.value.block, form.value.granularity.value) == (
        32,
        1,
        "per-token",
    )
    assert (form.key.group_size, form.key.block) == (None, 64)
    protected = KVFormat.of(Configuration.parse("w16a16-knvfp4vnvfp4+protect{1}:k8v8"), 1)
    assert (protected.key.group_size, protected.key.table) == (None, "")
    latent = KVFormat.of(Configuration.parse("w16a16-knvfp4vnvfp4+rope8"), 0).of_latent(8)
    assert (latent.key.group_size, latent.value.group_size, latent.value.table) == (16, None, "")


@pytest.mark.parametrize("tokens", [1, 100, 1000, 4000])
def test_sinks_take_no_more_than_the_tokens_there_are(tokens: int) -> None:
    whole = layer_bytes("w16a16-k16v16", tokens)
    assert layer_bytes("w16a16-k2v2+sink4000", tokens) == whole
    assert layer_bytes("w16a16-k2v2-kc+sink4000+res64", tokens) == whole


def test_per_tensor_keeps_one_pair_a_token() -> None:
    assert layer_bytes("w16a16-k4v4-pt", 1000) == 2 * (8 * 1000 * 64 + 1000 * 4)


def test_per_channel_keys_hold_whole_blocks_and_a_block_being_filled() -> None:
    # 1000 = 31 blocks of 32 + 8: 992 keys packed, their scales per block and channel, and a
    # 16-bit block; values stream, one pair per token and head.
    keys = 8 * (992 * 64 + 31 * 128 * 4 + 32 * 128 * 2)
    values = 8 * (1000 * 64 + 1000 * 4)
    assert layer_bytes("w16a16-k4v4-kc", 1000) == keys + values


def test_per_block_tiles() -> None:
    # 1000 = 7 tiles of 128 + 104; two groups of 64 channels.
    side = 8 * (896 * 64 + 7 * 2 * 4 + 128 * 128 * 2)
    assert layer_bytes("w16a16-k4v4-pb128-g64", 1000) == 2 * side


def test_residual_sinks_and_mean() -> None:
    packed = 1000 - 128 - 4
    side = 8 * (packed * (64 + 8) + (128 + 4) * 256)
    mean = 8 * 128 * 4
    assert layer_bytes("w16a16-k4v4-g64+smooth+res128+sink4", 1000) == 2 * side + mean


def test_a_window_wider_than_the_sequence_holds_no_more_than_the_sequence() -> None:
    buffers = KVFormat.of(Configuration.parse("w16a16-k4v4-g64+res128"), 0).buffers(
        1, 8, 128, 128, 100
    )
    assert {b.name: b.shape[2] for b in buffers if b.name.startswith("k_")} == {
        "k_values": 0,
        "k_scale": 0,
        "k_residual": 100,
    }


@pytest.mark.parametrize(
    ("dim", "groups", "value_bytes"),
    [(80, 3, 40), (96, 3, 48), (64, 2, 32), (20, 1, 10), (33, 2, 17)],
)
def test_odd_head_sizes(dim: int, groups: int, value_bytes: int) -> None:
    assert layer_bytes("w16a16-k4v4-g32", 7, dim=dim, heads=1) == 2 * 7 * (value_bytes + groups * 4)


def test_batch_multiplies_everything() -> None:
    text = "w16a16-k4v2-kc-g64+smooth+rot+res32+sink4"
    assert layer_bytes(text, 777, batch=3) == 3 * layer_bytes(text, 777)


def test_a_latent_is_the_key_and_its_rotary_key_the_value() -> None:
    format_ = KVFormat.of(Configuration.parse("w16a16-k4v4-g64"), 0)
    assert format_.of_latent(16).nbytes(1, 1, 512, 64, 10) == 10 * (256 + 8 * 4 + 64 * 2)
    assert format_.of_latent(8).nbytes(1, 1, 512, 64, 10) == 10 * (256 + 8 * 4 + 64 + 4)
    assert format_.nbytes(1, 1, 512, 0, 10) == 10 * (256 + 8 * 4)
    assert {b.name[0] for b in format_.buffers(1, 1, 512, 0, 10)} == {"k"}


def test_protected_layers_have_their_own_format() -> None:
    config = Configuration.parse("w16a16-k4v4-g64+protect{1}:k8v16")
    first, second = KVFormat.of(config, 0), KVFormat.of(config, 1)
    assert (first.key.bits, second.key.bits, second.value.bits) == (4, 8, 16)
    assert not second.value.quantized


@pytest.mark.parametrize(
    ("window", "tokens", "chunk", "capacity"),
    [
        (None, 1000, 256, 1000),
        (128, 1000, 256, 383),
        (128, 100, 256, 100),
        (128, 1000, None, 1000),
        (128, 1000, 1, 128),
    ],
)
def test_window_capacity(window: int | None, tokens: int, chunk: int | None, capacity: int) -> None:
    assert window_capacity(window, tokens, chunk) == capacity


def test_protected_layers_hold_integers_and_are_not_clipped() -> None:
    config = Configuration.parse("w16a16-knf4v2+clip70+protect{1}:k4v8")
    first, second = KVFormat.of(config, 0), KVFormat.of(config, 1)
    assert (first.key.table, first.key.clip, first.value.clip) == ("nf4", 100, 70)
    assert (second.key.table, second.key.bits, second.value.clip) == ("", 4, 100)


@pytest.mark.parametrize(
    ("text", "shared"),
    [("k3v3", 80), ("k3v3-g64", 64), ("k3v3-kc64", 64), ("k3v3-pb128-g32", 4096)],
)
def test_values_that_share_a_scale(text: str, shared: int) -> None:
    assert KVFormat.of(Configuration.parse(f"w16a16-{text}"), 0).key.shared_values(80) == shared
