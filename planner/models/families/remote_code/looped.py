"""Decoders that pass their layers several times: HRM-Text and Ouro.

The weights exist once, but every pass has keys and values of its own: the cache is as large as
that of a model with as many layers as passes through one.
"""

from functools import partial

from ...config_fields import MAX_LAYERS, Fields
from ...spec import Attention, Layer, Role
from ...tensor_list import Tensors
from ..blocks.attention import gqa
from ..blocks.ffn import gated
from ..blocks.layer_types import FULL
from ..decoder import Block, Decoder, attention_kinds, build_layers, max_context, text_decoder
from ..llama import LLAMA, SANDWICH_OURO


def hrm_text(f: Fields, t: Tensors) -> Decoder:
    """A fast stack run `L_cycles` times for each of `H_cycles` runs of a slow one.

    transformers writes `num_hidden_layers` as all passes, `num_layers_per_stack` as the layers.
    """
    hidden, vocab = f.count("hidden_size"), f.count("vocab_size")
    slow, fast = f.count("H_cycles", high=256), f.count("L_cycles", high=256)
    each = f.optional_count("num_layers_per_stack", high=MAX_LAYERS) or f.layers()
    b = Block(f, t, hidden)

    def layer(_: str) -> Layer:
        mixer: Attention = gqa(b, FULL, bias="attention_bias", gate="gate_proj")
        return Layer((mixer,), gated(b, bias="mlp_bias"))

    with t.scope("model."):
        t.add("z_L_init", (hidden,), Role.OTHER)
        t.embedding("embed_tokens", vocab, hidden)
        stack = build_layers(t, "L_module.layers.*.", [FULL] * each, layer)
        build_layers(t, "H_module.layers.*.", [FULL] * each, layer)
    tied = f.flag("tie_word_embeddings")
    if not tied:
        t.head("lm_head", hidden, vocab)
    passes = _checked(f, each * slow * (fast + 1))
    return Decoder(hidden, vocab, max_context(f), (stack[0],) * passes, tied)


def ouro(f: Fields, t: Tensors) -> Decoder:
    """Ouro: Llama's layers between norms, `total_ut_steps` passes, and a gate that may end them.

    Its code comes with the checkpoint; every pass is planned, as if the gate never ended one.
    """
    decoder = text_decoder(f, t, OURO)
    t.linear("model.early_exit_gate", decoder.hidden, 1, True)
    steps = f.count("total_ut_steps", high=256)
    _checked(f, steps * len(decoder.layers))
    decoder.layers = decoder.layers * steps
    return decoder


def _checked(f: Fields, passes: int) -> int:
    if passes > MAX_LAYERS:
        raise f.wrong("num_hidden_layers", passes, f"at most {MAX_LAYERS} passes through a layer")
    return passes


OURO = LLAMA.but(
    attention=partial(gqa, bias=False),
    ffn=gated,
    norms=SANDWICH_OURO,
    sandwich=True,
    kinds=attention_kinds,
)
READERS = {"hrm_text": hrm_text, "ouro": ouro}
