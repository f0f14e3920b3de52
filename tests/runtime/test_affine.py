"""Affine maps: nothing but rounding changes, bytes are the planner's, files are read with care."""

from pathlib import Path

import pytest
import torch

from kvpareto.planner.accuracy.calibrations import AFFINE, begin, folder_of
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.kv_format import KVFormat
from kvpareto.runtime.attention import append, attend
from kvpareto.runtime.cache.affine import find_maps, map_in, map_out, maps_of, write_maps
from kvpareto.runtime.cache.kv_cache import PackedCache
from kvpareto.runtime.cache.layer_state import LayerState
from tests.support.runtime_builders import attention_spec, relative_error


def random_maps(heads: int, dim: int, *, queries: bool, seed: int) -> torch.Tensor:
    """An invertible matrix a head that stretches some directions eight times as much as others."""
    random = torch.Generator().manual_seed(seed)
    turns = torch.linalg.qr(torch.randn(heads, dim, dim, generator=random).double())[0]
    stretch = torch.linspace(0.5, 4.0, dim).double()
    mean = 3 + torch.randn(heads, dim, generator=random).double() if queries else None
    return maps_of(turns * stretch, mean, queries=queries)


def maps(layers: int, heads: int = 2, dim: int = 64) -> dict[str, torch.Tensor]:
    return {
        f"{layer}.{side}": random_maps(heads, dim, queries=side == "key", seed=layer)
        for layer in range(layers)
        for side in ("key", "value")
    }


def mixed(text: str, held: dict[str, torch.Tensor] | None) -> torch.Tensor:
    """What two layers' attention gives for the last 5 of 70 tokens."""
    spec = attention_spec(query_heads=6)
    cache = PackedCache(
        spec, Configuration.parse(f"w16a16-{text}"), tokens=80, dtype=torch.float32, maps=held
    )
    random = torch.Generator().manual_seed(5)
    outputs = []
    for n in (65, 5):
        cache.clock.advance(n)
        for state in cache.states:
            key, value = (torch.randn(1, 2, n, 64, generator=random) for _ in range(2))
            append(state, key + 3.0, value)
            query = torch.randn(1, 6, n, 64, generator=random)
            outputs.append(attend(query, state, scaling=64**-0.5))
    return torch.cat(outputs[-2:])


@pytest.mark.parametrize("text", ["k8v8-g32+affine", "k8v16+affine", "k8v8-kc+affine+res16+sink2"])
def test_attention_is_what_it_was_but_for_rounding(text: str) -> None:
    assert relative_error(mixed(text, maps(2)), mixed("k16v16", None)) < 0.03


def test_what_is_mapped_comes_back() -> None:
    held = random_maps(2, 64, queries=False, seed=1)
    x = torch.randn(1, 2, 7, 64, generator=torch.Generator().manual_seed(2))
    assert relative_error(map_out(map_in(x, held), held), x) < 3e-3
    queries = random_maps(2, 64, queries=True, seed=1)
    asked = torch.randn(1, 6, 7, 64, generator=torch.Generator().manual_seed(3))
    scores = map_out(asked, queries).unflatten(1, (2, 3)) @ map_in(x, queries)[:, :, None].mT
    plain = asked.unflatten(1, (2, 3)) @ x[:, :, None].mT
    moved = scores - plain  # by the same number for all keys of a query
    assert float((moved - moved[..., :1]).abs().max()) < 0.02 * float(plain.abs().max())


def test_buffers_are_the_planners_and_a_row_of_a_batch_shares_them() -> None:
    config = Configuration.parse("w16a16-k2v16+affine")
    assert KVFormat.of(config, 0).nbytes(3, 2, 64, 64, 0) == 2 * 129 * 64 * 2
    both = Configuration.parse("w16a16-k2v2+affine")
    cache = PackedCache(attention_spec(), both, tokens=40, batch=3, maps=maps(2))
    expected = 2 * KVFormat.of(both, 0).nbytes(3, 2, 64, 64, 40)
    assert cache.nbytes == expected
    state = cache.states[0]
    assert isinstance(state, LayerState)
    assert state.rows[1].key.affine is state.key.affine


def test_maps_of_another_shape_are_refused() -> None:
    config = Configuration.parse("w16a16-k2v2+affine")
    for wrong in (maps(1), maps(2, heads=4), {**maps(2), "1.value": torch.full((2, 129, 64), 1e9)}):
        wrong = {n: t.half() for n, t in wrong.items()}
        with pytest.raises(BadInput, match="affine maps do not fit layer"):
            PackedCache(attention_spec(), config, tokens=40, maps=wrong)


def test_maps_are_found_beside_the_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVPARETO_HOME", str(tmp_path))
    spec = attention_spec()
    with pytest.raises(BadInput, match="has no affine maps") as error:
        PackedCache(spec, Configuration.parse("w16a16-k2v2+affine"), tokens=40)
    assert "calibrate --affine -m MODEL learns" in error.value.hint
    folder = folder_of(spec)
    folder.mkdir(parents=True)
    begin(folder, spec)
    with pytest.raises(BadInput, match="has no affine maps") as error:
        find_maps(spec)
    assert "-m MODEL --resume" in error.value.hint  # without it, a calibration is not touched
    write_maps(folder, maps(2))
    found = find_maps(spec)
    assert all(torch.equal(found[name], held) for name, held in maps(2).items())
    PackedCache(spec, Configuration.parse("w16a16-k2v2+affine"), tokens=40)
    (folder / AFFINE).write_bytes(b"torn")
    with pytest.raises(BadInput, match="cannot be read") as error:
        find_maps(spec)
    assert "-m MODEL --resume" in error.value.hint
    (folder / AFFINE).unlink()
    (folder / AFFINE).mkdir()
    with pytest.raises(BadInput, match="is no file of maps") as error:
        find_maps(spec)
    assert error.value.hint.startswith("move it away; then ")
