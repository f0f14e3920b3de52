"""CUDA kernels compiled ahead of the runs: one after another they would take longer than these."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.spec import Attention, ModelSpec

from .planned_run import PlannedRun
from .real_shapes import spec_of


def compile_ahead(runs: Iterable[PlannedRun]) -> None:
    """Compile the CUDA kernels of all formats of our engine's runs side by side."""
    import torch

    from kvpareto.runtime.cache.kv_cache import PackedCache
    from kvpareto.runtime.kernels import cuda_decode
    from kvpareto.runtime.kernels.cuda_stage import Stager

    device = torch.device("cuda")
    jobs: dict[tuple[str, Attention], tuple[ModelSpec, Attention, Configuration]] = {}
    for run in runs:
        if run.config is None or run.engine is not KVPARETO:
            continue
        spec = spec_of(run.model)
        layers = tuple({layer.mixers: layer for layer in spec.layers}.values())
        for config in _formats(run.config):
            for layer in layers:
                (mixer,) = layer.mixers
                assert isinstance(mixer, Attention)  # the designs' models have no other
                one = replace(spec, layers=(layer,)), mixer, config
                jobs.setdefault((str(config), mixer), one)

    def compile_one(spec: ModelSpec, mixer: Attention, config: Configuration) -> None:
        kind = torch.bfloat16
        with suppress(Exception):  # what fails here fails again in its run, and is recorded there
            cache = PackedCache(spec, config, tokens=256, batch=1, device=device, dtype=kind)
            cache.clock.place(1)
            (state,) = cache.states
            shape = 1, mixer.query_heads, 1, mixer.head_dim
            query = torch.zeros(shape, dtype=kind, device=device)
            Stager(state, kind)
            if cuda_decode.supports(state, query):
                cuda_decode.decode(query, state, scaling=1.0)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: compile_one(*job), jobs.values()))
    torch.cuda.synchronize()


def _formats(config: Configuration) -> Iterator[Configuration]:
    """Each cache format of a configuration by itself: of most layers, and of protected ones."""
    plain = replace(config, weight_bits=16, chunk=None, protection=None)
    yield plain
    if config.protection is not None:
        kept = config.protection
        yield replace(plain, k_bits=kept.k_bits, v_bits=kept.v_bits)
