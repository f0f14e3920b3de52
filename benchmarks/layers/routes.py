"""Whether a last bit that turns a route is what parts a mixture's logits from the plain way's.

    python -m benchmarks.layers.routes --models deepseek-v2-lite glm-4.7-flash

A model with random experts is run over the same prompt by the kernels and by the plain reference.
Printed for each: how far the logits are apart; of how many tokens a layer's experts differ, in the
first and in the last layer; and how far apart they are when the kernels' pass is given the plain
pass's experts and their weights.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.models.read_config import read_model
from kvpareto.runtime.session import Session
from kvpareto.runtime.weights.random import random_model

from .layer_shapes import architecture

PROMPT, CHUNK = 700, 256

Routes = list[tuple[torch.Tensor, ...]]


def routers(model: Any) -> list[torch.nn.Module]:
    """Modules that return scores, the chosen experts' weights, and which they are."""
    return [m for m in model.modules() if type(m).__name__.endswith(("TopkRouter", "TopKRouter"))]


@contextmanager
def hooked(model: Any, given: Routes | None) -> Iterator[Routes]:
    """Routes of the passes within, in order; `given` takes the place of what routers choose."""
    taken: Routes = []

    def hook(_: Any, __: Any, output: tuple[torch.Tensor, ...]) -> Any:
        taken.append(tuple(x.clone() for x in output[-2:]))
        if given is None:
            return None
        weights, chosen = given[len(taken) - 1]
        return (*output[:-2], weights, chosen)

    handles = [m.register_forward_hook(hook) for m in routers(model)]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def logits(
    model: Any, spec: Any, config: Configuration, ids: torch.Tensor, kernels: bool, given: Any
) -> tuple[torch.Tensor, Routes]:
    """Of the prompt's last token [1, V]; the routes that were chosen."""
    how: dict[str, Any] = {"graphs": False, "kernels": kernels, "fused": kernels}
    with (
        Session(model, spec, config.with_chunk(CHUNK), tokens=PROMPT + 8, **how) as session,
        hooked(model, given) as routes,
    ):
        return session.prefill(ids).float().cpu(), routes


def turned(found: Routes, plain: Routes, layers: int) -> list[float]:
    """Share of tokens, by layer, whose set of experts is another."""
    shares = []
    for layer in range(layers):
        other = total = 0
        for (_, ours), (_, theirs) in zip(found[layer::layers], plain[layer::layers], strict=True):
            same = (ours.sort(-1).values == theirs.sort(-1).values).all(-1)
            other, total = other + int((~same).sum()), total + same.numel()
        shares.append(other / total)
    return shares


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["deepseek-v2-lite", "glm-4.7-flash"])
    parser.add_argument("--config", default="w8a16-k8v8-g64")
    chosen = parser.parse_args()
    config = Configuration.parse(chosen.config)
    for name in chosen.models:
        content = architecture(name)
        spec = read_model(content, name)
        model: Any = random_model(content, config.weight_bits, "cuda")
        make = torch.Generator().manual_seed(3)
        ids = torch.randint(5, 500, (1, PROMPT), generator=make)
        plain, routes = logits(model, spec, config, ids, False, None)
        free, own = logits(model, spec, config, ids, True, None)
        forced, _ = logits(model, spec, config, ids, True, routes)
        layers = len(routers(model))
        shares = turned(own, routes, layers)
        print(
            f"{name} {config}: logits {apart(free, plain):.4f} apart; other experts for "
            f"{shares[0]:.2%} of the tokens in the first of {layers} routed layers, "
            f"{shares[layers // 2]:.1%} in the middle one, {shares[-1]:.1%} in the last; with the "
            f"same experts {apart(forced, plain):.4f} apart",
            flush=True,
        )
        del model
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
