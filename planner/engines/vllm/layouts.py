"""Ways to share a model among cards: tensor, pipeline and data parallel sizes that divide it.

Data parallel replicas of models with experts spread these whole over all ranks
(--enable-expert-parallel): replicas of such a model share its experts in any case.
"""

from dataclasses import replace

from ...errors import BadInput
from ...models.spec import ModelSpec, MoEFFN
from ...serving import Parallel
from .rank import sizes_that_divide, tensor_obstacle
from .settings import ServeSettings


def layouts(spec: ModelSpec, cards: int, asked: Parallel | None) -> list[Parallel]:
    """What fills the cards: tensor parallel ranks as many as divide the model first, then stages,
    then replicas. `asked`: the one layout that may be. Raises BadInput where it cannot."""
    experts = any(isinstance(layer.ffn, MoEFFN) for layer in spec.layers)
    if asked is not None:
        _check(spec, cards, asked, experts)
        return [asked]
    found = []
    for tensor in sorted((n for n in range(1, cards + 1) if cards % n == 0), reverse=True):
        left = cards // tensor
        cut = tensor_obstacle(spec, tensor) is None
        if not cut and (not experts or tensor_obstacle(spec, tensor, experts_whole=True)):
            continue
        for pipeline in sorted((n for n in range(1, left + 1) if left % n == 0), reverse=True):
            data = left // pipeline
            if pipeline > len(spec.layers):
                continue
            found.append(Parallel(tensor, pipeline, data, experts and (data > 1 or not cut)))
    return sorted(found, key=lambda one: (one.data, -one.tensor))


def with_layout(settings: ServeSettings, layout: Parallel) -> ServeSettings:
    """The settings with these sizes."""
    return replace(
        settings,
        tensor_parallel=layout.tensor,
        pipeline_parallel=layout.pipeline,
        data_parallel=layout.data,
        expert_parallel=layout.experts,
    )


def _check(spec: ModelSpec, cards: int, asked: Parallel, experts: bool) -> None:
    obstacle = tensor_obstacle(spec, asked.tensor, experts_whole=asked.experts)
    if obstacle is not None:
        sizes = ", ".join(map(str, sizes_that_divide(spec, max(8, asked.tensor))))
        raise BadInput(
            f"tensor parallel size {asked.tensor} does not divide {spec.name}: {obstacle}",
            f"sizes that do: {sizes}",
        )
    if asked.pipeline > len(spec.layers):
        raise BadInput(
            f"{asked.pipeline} pipeline stages for {len(spec.layers)} layers",
            f"at most {len(spec.layers)} have a layer each",
        )
    if asked.experts and not experts:
        raise BadInput(f"{spec.name} has no experts to spread", "leave ep out of --parallel")
    if asked.cards != cards:
        raise BadInput(
            f"--parallel {asked} fills {asked.cards} cards, and --gpu names {cards}",
            "their product is the number of cards: --gpu 4xH100 --parallel tp2,dp2",
        )
