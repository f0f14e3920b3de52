"""Small models with recurrent, latent or local layers, and what transformers says with them."""

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.minimax.modeling_minimax import MiniMaxCache

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.workload import Workload
from kvpareto.runtime.cache.state_layer import StateLayer
from kvpareto.runtime.model_class import check_class
from tests.support.runtime_builders import (
    TOLERANCE,
    RoundedCache,
    queued_as_alone,
    relative_error,
    session,
)
from tests.support.tiny_configs import CONFIGS
from tests.support.tiny_recent import RECENT


class RoundedMiniMaxCache(MiniMaxCache):
    """MiniMax's class takes no other cache."""

    def update(self, key_states, value_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        rounded = (x.bfloat16().float() for x in (key_states, value_states))
        return super().update(*rounded, *args, **kwargs)


def hybrid(kind: str) -> PreTrainedModel:
    """A float32 model of a small config, the same weights at each call."""
    torch.manual_seed(5)
    content = CONFIGS.get(kind) or RECENT[kind]
    fields = {k: v for k, v in content.items() if k not in ("model_type", "dtype")}
    fields = {k: v for k, v in fields.items() if v != "absent"}
    made = CONFIG_MAPPING[kind](**fields)
    check_class(made, kind)
    found: PreTrainedModel = AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()
    return found


@torch.no_grad()
def by_transformers(
    model: PreTrainedModel, ids: torch.Tensor, count: int
) -> tuple[torch.Tensor, list[int]]:
    """The prompt's last logits and greedy tokens, eager, one shot, keys and values in bfloat16."""
    model.set_attn_implementation("eager")
    lightning = model.config.model_type == "minimax"
    cache: DynamicCache = RoundedMiniMaxCache() if lightning else RoundedCache(config=model.config)
    first = logits = model(ids, past_key_values=cache, use_cache=True).logits[:, -1]
    tokens = []
    for _ in range(count):
        tokens.append(int(logits.argmax(-1)))
        step = torch.tensor([[tokens[-1]]])
        logits = model(step, past_key_values=cache, use_cache=True).logits[:, -1]
    return first, tokens


def check_equals_transformers(
    model: PreTrainedModel, config: str, *, prompt: int = 23, tokens: int = 40
) -> None:
    """A session's logits and greedy tokens of a prompt, twice: the first leaves nothing behind."""
    ids = torch.randint(3, 90, (1, prompt), generator=torch.Generator().manual_seed(1))
    logits, answer = by_transformers(model, ids, 10)
    with session(model, config, tokens=tokens) as run:
        for _ in range(2):
            assert relative_error(run.prefill(ids), logits) < TOLERANCE
        assert run.generate(ids, 10, stops=frozenset()).tokens == [answer]


def check_joining(model: PreTrainedModel) -> None:
    """Prompts that join a batch of two as others leave it are answered as each is alone."""
    prompts = [[5, 6, 7, 8, 9, 10, 11], [9, 4, 3], list(range(20, 32)), [12, 13]]
    config = "w16a16-k8v8-g32+pc8"
    assert queued_as_alone(model, config, prompts, [5, 8, 3, 4], tokens=40, batch=2).joined >= 1


def check_cache_bytes(model: PreTrainedModel) -> None:
    """A batch of two takes what the planner counts, before it runs and after."""
    spec = read_model(model.config.to_dict() | {"dtype": "float32"}, "test")
    assert spec.runnable
    config = Configuration.parse("w16a16-k4v4-g32+pc8")
    predicted = kv_bytes(spec, config, Workload(30, 10, 2), KVPARETO).total
    with session(model, str(config), tokens=40, batch=2) as run:
        assert run.cache.nbytes == predicted
        run.generate([[5, 6, 7], [8, 9, 4]], 3, stops=frozenset())  # no state was of another size
        assert run.cache.nbytes == predicted
        assert not any(layer.unused for layer in run.cache.layers if isinstance(layer, StateLayer))
