"""Models with recurrent layers: transformers' states, our packed attention, the planner's bytes."""

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.minimax.modeling_minimax import MiniMaxCache

from kvpareto.planner.engines.kvpareto import KVPARETO
from kvpareto.planner.errors import BadInput
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model
from kvpareto.planner.memory.kv_cache import kv_bytes
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import STATEFUL_RUN
from kvpareto.planner.workload import Workload
from kvpareto.runtime.cache.kv_cache import PackedCache
from kvpareto.runtime.cache.state_layer import StateLayer
from kvpareto.runtime.model_class import check_class
from kvpareto.runtime.serving.queue import PromptRequest
from tests.support.runtime_builders import TOLERANCE, RoundedCache, relative_error, session
from tests.support.tiny_configs import CONFIGS
from tests.support.tiny_recent import RECENT

pytestmark = pytest.mark.cpu


class RoundedMiniMaxCache(MiniMaxCache):
    """MiniMax's class takes no other cache."""

    def update(self, key_states, value_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        rounded = (x.bfloat16().float() for x in (key_states, value_states))
        return super().update(*rounded, *args, **kwargs)


def hybrid(kind: str) -> PreTrainedModel:
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


@pytest.mark.parametrize("kind", STATEFUL_RUN)
@pytest.mark.parametrize("chunk", ["", "+pc5"], ids=["one-shot", "chunk-5"])
def test_sixteen_bits_equal_transformers(kind: str, chunk: str) -> None:
    model = hybrid(kind)
    ids = torch.randint(3, 90, (1, 23), generator=torch.Generator().manual_seed(1))
    logits, tokens = by_transformers(model, ids, 10)
    with session(model, "w16a16-k16v16" + chunk, tokens=40) as run:
        for _ in range(2):  # the first prompt leaves nothing behind
            assert relative_error(run.prefill(ids), logits) < TOLERANCE
        assert run.generate(ids, 10, stops=frozenset()).tokens == [tokens]


@pytest.mark.parametrize("kind", STATEFUL_RUN)
def test_the_cache_takes_what_the_planner_counts(kind: str) -> None:
    model = hybrid(kind)
    spec = read_model(model.config.to_dict() | {"dtype": "float32"}, "test")
    assert spec.runnable
    config = Configuration.parse("w16a16-k4v4-g32+pc8")
    predicted = kv_bytes(spec, config, Workload(30, 10, 2), KVPARETO).total
    with session(model, str(config), tokens=40, batch=2) as run:
        assert run.cache.nbytes == predicted
        run.generate([[5, 6, 7], [8, 9, 4]], 3, stops=frozenset())  # no state was of another size
        assert run.cache.nbytes == predicted
        assert not any(layer.unused for layer in run.cache.layers if isinstance(layer, StateLayer))


@pytest.mark.parametrize("kind", STATEFUL_RUN)
def test_sequences_join_and_leave(kind: str) -> None:
    model, config = hybrid(kind), "w16a16-k8v8-g32+pc8"
    prompts = [[5, 6, 7, 8, 9, 10, 11], [9, 4, 3], list(range(20, 32)), [12, 13]]
    most = [5, 8, 3, 4]
    expected = []
    for prompt, count in zip(prompts, most, strict=True):
        with session(model, config, tokens=40) as run:
            expected += run.generate(prompt, count, stops=frozenset()).tokens
    with session(model, config, tokens=40, batch=2) as run:
        run.stops = frozenset()
        asked = [PromptRequest(i, p, m) for i, (p, m) in enumerate(zip(prompts, most, strict=True))]
        answers, counts = run.queue(asked)
        found = {answer.number: answer.tokens for answer in answers}
    assert [found[i] for i in range(4)] == expected
    assert counts.joined >= 1


def test_padding_that_a_state_would_read_is_refused() -> None:
    model = hybrid("granitemoehybrid")
    with (
        session(model, "w16a16-k16v16", tokens=20, batch=2) as run,
        pytest.raises(BadInput, match="would read the padding"),
    ):
        run.generate([[5, 6, 7], [8]], 2)


@pytest.mark.parametrize("text", ["k16v16", "k8v8-g64+pc512", "k4v4-g32+res128+sink4+pc1024"])
@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "Qwen/Qwen3.5-27B",
        "deepseek-ai/DeepSeek-V2-Lite-Chat",
        "meta-llama/Llama-4-Scout-17B-16E-Instruct",
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16",
    ],
)
def test_bytes_at_real_shapes(name: str, text: str) -> None:
    """Published models, two sequences of 20,000 tokens, allocated on the meta device."""
    spec, config = load_model(name, offline=True), Configuration.parse(f"w16a16-{text}")
    predicted = kv_bytes(spec, config, Workload(19_990, 10, 2), KVPARETO).total
    assert PackedCache(spec, config, tokens=20_000, batch=2, device="meta").nbytes == predicted
