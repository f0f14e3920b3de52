"""The last layer for one row of a prompt's pass: the same tokens and the same cache as for all."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from kvpareto.calibration.config_check.meta_model import hf_config
from kvpareto.planner.memory.activation.last_layer import reads_one_row
from kvpareto.runtime.generation import last_layer
from kvpareto.runtime.serving.queue import PromptRequest
from kvpareto.runtime.session import Session
from tests.support.runtime_builders import TOLERANCE, relative_error, session
from tests.support.tiny_configs import CONFIGS
from tests.support.tiny_recent import RECENT

pytestmark = pytest.mark.cpu

ONE_ROW = (
    "llama", "mistral-window", "qwen3", "gemma2", "gemma3_text", "phi", "phi3", "cohere", "olmo2",
    "stablelm-parallel", "gpt2", "gpt_neox", "mixtral", "qwen3_moe", "gpt_oss", "granitemoe",
    "llama4_text", "ministral3", "deepseek_v2", "deepseek_v3", "qwen3_next", "olmo_hybrid",
)  # fmt: skip
"""Plain, windowed, parallel, mixtures, local chunks, scales by position, latents, and hybrids that
end with attention."""
WHOLE = (
    "granitemoehybrid", "bamba", "falcon_h1", "jamba", "zamba2", "lfm2", "minimax", "kimi_linear",
    "nemotron_h", "gemma3n_text", "gemma4_text",
)  # fmt: skip
"""The last layer carries a state, is one that others are too, or reads another's keys."""


def model_of(kind: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    content = (CONFIGS.get(kind) or RECENT[kind]) | fields
    config = hf_config({**content, "dtype": "float32"})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    return model


def prompt(tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, 90, (1, tokens), generator=torch.Generator().manual_seed(seed))


def held(run: Session) -> list[torch.Tensor]:
    return [t.clone() for s in run.cache.states for t in (*s.key.tensors(), *s.value.tensors())]


def blank(run: Session) -> None:
    """Zeros where no token has been, so that caches can be compared."""
    with torch.inference_mode():
        for state in run.cache.states:
            for side in (state.key, state.value):
                for tensor in side.tensors():
                    tensor.zero_()


def answers(
    run: Session, ids: Any, least: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[torch.Tensor, list[torch.Tensor], list[list[int]]]:
    """A prompt's logits, what the cache then holds, and the tokens that follow."""
    monkeypatch.setattr(last_layer, "LEAST", least)
    blank(run)
    logits = run.prefill(ids).clone()
    return logits, held(run), run.generate(ids, 6, stops=frozenset()).tokens


def counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every pass of a last layer, whether it is run for one row."""
    found: list[bool] = []
    cut = last_layer._last_row

    def spy(given: dict[str, Any]) -> dict[str, Any] | None:
        row = cut(given)
        found.append(row is not None)
        return row

    monkeypatch.setattr(last_layer, "_last_row", spy)
    return found


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [*((kind, "+pc6") for kind in ONE_ROW + WHOLE), ("llama", ""), ("deepseek_v2", "")],
)
def test_the_answer_and_the_cache_are_the_whole_layer_s(
    kind: str, chunk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = counted(monkeypatch)
    with session(model_of(kind), "w16a16-k8v8-g32" + chunk, tokens=40) as run:
        logits, kept, tokens = answers(run, prompt(23), 1, monkeypatch)
        assert passes == [kind in ONE_ROW] * len(passes)
        assert bool(passes) == reads_one_row(run.spec) == (kind in ONE_ROW)
        whole, expected, said = answers(run, prompt(23), 10**6, monkeypatch)
    assert relative_error(logits, whole) < TOLERANCE
    assert tokens == said
    assert all(map(torch.equal, kept, expected))


def test_a_scale_by_position_is_the_row_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 4's layers without RoPE scale queries by the place that the cache says they have."""
    layers = CONFIGS["llama4_text"]["num_hidden_layers"]
    fields = {"no_rope_layers": [1] * (layers - 1) + [0], "floor_scale": 2, "attn_scale": 1.0}
    model = model_of("llama4_text", attn_temperature_tuning=True, **fields)
    with session(model, "w16a16-k8v8-g32+pc6", tokens=40) as run:
        logits, _, tokens = answers(run, prompt(23), 1, monkeypatch)
        whole, _, said = answers(run, prompt(23), 10**6, monkeypatch)
    assert relative_error(logits, whole) < TOLERANCE
    assert tokens == said


@pytest.mark.parametrize("kind", ["llama", "mistral-window", "gpt_oss", "deepseek_v2"])
@pytest.mark.parametrize("text", ["w16a16-k4v4-g32+pc8", "w16a16-k4v4-kc+res8+sink2+pc8"])
def test_sequences_of_unlike_length(kind: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest begins in the last chunk: the first two have nothing of it but padding."""
    if kind == "deepseek_v2" and "kc" in text:
        pytest.skip("latents have a pair a token")
    rows = [prompt(n, n)[0].tolist() for n in (21, 9, 2)]
    if "sink" in text:
        rows = [prompt(21, n)[0].tolist() for n in (1, 2, 3)]
    with session(model_of(kind), text, tokens=40, batch=3) as run:
        logits, kept, tokens = answers(run, rows, 1, monkeypatch)
        whole, expected, said = answers(run, rows, 10**6, monkeypatch)
    assert relative_error(logits, whole) < TOLERANCE
    assert tokens == said
    assert all(map(torch.equal, kept, expected))


def test_only_one_row_passes_the_last_feed_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "LEAST", 1)
    model, rows = model_of("llama"), []
    layers = model.model.layers
    for layer in layers:
        layer.mlp.register_forward_hook(lambda module, given, _: rows.append(given[0].shape[1]))
    with session(model, "w16a16-k8v8-g32", tokens=40) as run:
        run.prefill(prompt(23))
        assert rows == [23] * (len(layers) - 1) + [1]
        rows.clear()
        list(run.logits(prompt(23), torch.arange(23)))  # all rows are read
        assert rows == [23] * len(layers)


def test_few_rows_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = counted(monkeypatch)
    with session(model_of("llama"), "w16a16-k8v8-g32", tokens=80) as run:
        run.prefill(prompt(last_layer.LEAST))
        assert not passes
        run.prefill(prompt(last_layer.LEAST + 1))
        assert passes == [True]


def test_a_state_that_a_row_would_miss_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the layer's kind not asked, a recurrent state would miss all rows but one."""
    monkeypatch.setattr(last_layer, "LEAST", 1)
    for kind in WHOLE:
        with session(model_of(kind), "w16a16-k8v8-g32", tokens=8) as run:
            assert run.forward._last_layer is None, kind


def test_sequences_that_join_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config = model_of("llama"), "w16a16-k8v8-g32+pc8"
    prompts = [prompt(n, n)[0].tolist() for n in (11, 3, 14, 2)]
    found = []
    for least in (1, 10**6):
        monkeypatch.setattr(last_layer, "LEAST", least)
        with session(model, config, tokens=40, batch=2) as run:
            run.stops = frozenset()
            asked = [PromptRequest(i, p, 3 + i) for i, p in enumerate(prompts)]
            given, counts = run.queue(asked)
            found.append({answer.number: answer.tokens for answer in given})
            assert counts.joined >= 1
    assert found[0] == found[1]


def test_an_argument_by_token_of_an_unknown_kind_keeps_the_layer_whole() -> None:
    hidden = torch.zeros(2, 5, 8)
    given = {"hidden_states": hidden, "position_ids": torch.zeros(1, 5), "use_cache": True}
    cut = last_layer._last_row(given)
    assert cut is not None
    assert cut["hidden_states"].shape == (2, 1, 8)
    assert cut["position_ids"].shape == (1, 1)
    for name, value in (
        ("per_layer_input", torch.zeros(2, 5, 8)),
        ("position_ids", torch.zeros(3, 2, 5)),  # of images: three rows of positions
        ("position_embeddings", {"full": torch.zeros(1, 5, 4)}),
        ("attention_mask", torch.zeros(2, 5)),
        ("position_embeddings", (torch.zeros(1, 5, 4), torch.zeros(1, 7, 4))),
    ):
        assert last_layer._last_row(given | {name: value}) is None, name


def test_the_model_has_its_own_forward_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "LEAST", 1)
    model = model_of("llama")
    last = model.model.layers[-1]
    with session(model, "w16a16-k8v8-g32", tokens=40) as run:
        run.prefill(prompt(23))
        assert "forward" not in last.__dict__
        monkeypatch.setattr(model.model.norm, "forward", _fails)
        with pytest.raises(ZeroDivisionError):
            run.prefill(prompt(23))
        assert "forward" not in last.__dict__
        last.forward = last.forward  # as a fused layer has one of its own
        own = last.__dict__["forward"]
        monkeypatch.undo()
        run.prefill(prompt(23))
        assert last.__dict__["forward"] is own
        del last.forward


def test_sessions_of_one_model_close_between_each_other_s_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A session that is closed while another's pass runs waits for it: the pass has the last
    layer's forward replaced."""
    monkeypatch.setattr(last_layer, "LEAST", 1)
    model = model_of("llama")
    inside, closed = threading.Event(), threading.Event()
    other = session(model, "w16a16-k8v8-g32", tokens=40)

    def wait(*_: Any) -> None:
        inside.set()
        assert not closed.wait(0.2)

    with session(model, "w16a16-k8v8-g32", tokens=40) as run:
        loan = run._loan
        loan._fused = [model.model.layers[-1]]
        loan._fusing.add(other)
        hook = model.model.layers[-1].mlp.register_forward_hook(wait)
        with ThreadPoolExecutor(2) as pool:
            prefill = pool.submit(run.prefill, prompt(23))
            prefill.add_done_callback(lambda _: inside.set())  # also where the pass raises
            inside.wait()
            closing = pool.submit(lambda: (other.close(), closed.set()))
            prefill.result()
            closing.result()
        hook.remove()
        assert "forward" not in model.model.layers[-1].__dict__


def _fails(*_: Any) -> None:
    raise ZeroDivisionError
