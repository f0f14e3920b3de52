"""Unread keys of a config: which of them can carry size, and what each may mean.

Names are all there is to go by, so they are judged by the words in them, the plain ones first:
settings of training, rotary positions, routers' scores and tokens carry no size; experts, ranks,
states, loops, windows, towers and the like do. A name without any of these words is judged by its
value: whole numbers, lists and sections may be sizes, flags, fractions and texts are not.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from ....light_dataclass import dataclass
from ...read_keys import ReadKeys


class Meaning(StrEnum):
    """What an unread key may change."""

    WINDOW = "window"  # layers that see, and keep, a window of tokens
    PATTERN = "pattern"  # layers of several kinds, some without attention
    BLOCKS = "blocks"  # the same, and some without an FFN
    SHARING = "sharing"  # layers that read another layer's keys and values
    STATE = "state"  # recurrent layers, whose states do not grow
    LOOP = "loop"  # layers that are run several times, with caches of their own each time
    TOWER = "tower"  # other towers beside the text model
    MTP = "mtp"  # layers that predict further tokens
    GATE = "gate"  # attention whose output is gated
    STREAMS = "streams"  # several residual streams (hyper-connections)
    INDEXER = "indexer"  # sparse attention's indexer, with keys of its own
    PLACEMENT = "placement"  # which layers have experts
    EXPERTS = "experts"  # experts in a spelling or form that is not understood
    FFN = "ffn"  # a second FFN, or a wider one
    UNNAMED = "unnamed"  # a number or a section whose name says nothing
    OTHER = "other"  # it may carry size, and nobody can say how


UNBOUNDED = (Meaning.EXPERTS, Meaning.UNNAMED, Meaning.OTHER)
"""Meanings that no bounds can be put on: the key is named and the file refused."""
FOREIGN = (Meaning.EXPERTS, Meaning.LOOP, Meaning.SHARING)
"""Meanings that a known family's file has no business to have."""


@dataclass(frozen=True, slots=True)
class Unread:
    """One key that nobody read: where, what it is called, its value, what it may mean."""

    path: str
    key: str
    value: Any
    meaning: Meaning

    @property
    def name(self) -> str:
        return self.path + self.key


_PLAIN_NAMES = frozenset(
    """
    _attn_implementation _from_model_config _name_or_path architectures auto_map block_size
    chunk_size_feed_forward
    add_cross_attention cross_attention_hidden_size decoder_start_token_id dim_model_base
    embedding_multiplier attention_multiplier residual_multiplier lm_head_multiplier
    logits_multiplier embd_pdrop attn_pdrop resid_pdrop finetuning_task encoder_no_repeat_ngram_size
    no_repeat_ngram_size id2label label2id is_decoder is_encoder_decoder language_model_type
    model_type model_name name ep_size tp_size gradient_checkpointing n_group n_groups_topk
    topk_group topk_groups num_expert_group
    num_expert_groups moe_n_group n_expert_groups num_beams num_beam_groups num_return_sequences
    num_labels number_of_groups
    pretraining_tp problem_type pruned_heads quantization quantization_config sep_token_id
    task_specific_params tf_legacy_loss tie_encoder_decoder torchscript transformers_version
    transformers.js_config tensor_parallel_size chunk_size prefill_chunk_size
    top_k top_p typical_p use_cache
    vision_feature_select_strategy zero_expert_type num_logits_to_keep head_dtype
    output_hidden_states output_attentions use_unified_vision_chunk
    """.split()  # noqa: SIM905
)
_PLAIN_ENDINGS = ("_in_multiplier", "_out_multiplier", "_token", "_token_id", "_token_ids")
# Words of settings that hold no weights whatever else the name says.
_PLAIN_WORDS = tuple(
    """
    rope rotary theta epsilon _eps dropout router_ _router scor topk aux loss coef coeff jitter
    scal initializer init_ dtype softcap soft_cap logit_cap alibi bias norm_ _norm layernorm
    rmsnorm qk_norm capacity beta_ lower_bound swiglu_limit clip_ position_embedding_type
    _mscale temperature penalty tokenizer quant flash _impl attn_implementation output_router
    memory_efficient pad_vocab org_vocab activation_sparsity
    """.split()  # noqa: SIM905
)
# The first line whose word is in the name decides. Refusals come first: those words name what
# has no common form.
_WORDS: tuple[tuple[Meaning, str], ...] = (
    (Meaning.OTHER, "swa_num swa_head swa_v swa_qk global_head num_global num_sliding num_swa"),
    (Meaning.OTHER, "router_hidden router_intermediate router_dim router_mlp router_layer mem_"),
    (
        Meaning.OTHER,
        "architecture ngram n_gram engram hash lora adapter per_layer memory mem_block slot cross_",
    ),
    (Meaning.OTHER, "vocab codebook hyper_network low_rank _rank multiplier expansion mlp_ratio"),
    (Meaning.TOWER, "vision visual image img_ audio video speech tower projector projection_"),
    (Meaning.TOWER, "mm_ vit_ talker code2wav token2wav vocoder speaker encoder perceiver"),
    (Meaning.MTP, "nextn mtp predict_layer medusa eagle draft"),
    (Meaning.SHARING, "cla_ use_cla kv_share share_kv shared_kv kv_shar share_factor yoco"),
    (Meaning.SHARING, "cross_layer kv_reuse reuse_kv"),
    (Meaning.LOOP, "loop recurrent_pass recurrence recurrent_step recurrent_depth ut_step repeat"),
    (Meaning.LOOP, "universal share_layer shared_layer tie_layer tied_layer sharing"),
    (Meaning.LOOP, "layer_share num_pass n_pass _passes recursion iteration unroll refine"),
    (Meaning.WINDOW, "sliding window swa_ local_att attention_chunk attn_chunk global_attn_every"),
    (Meaning.WINDOW, "global_every local_global full_attn_every context_window"),
    (Meaning.PLACEMENT, "moe_layer expert_layer interleave_moe moe_every moe_interval moe_step"),
    (Meaning.PLACEMENT, "sparse_step moe_frequency mlp_only"),
    (Meaning.EXPERTS, "expert moe"),
    (Meaning.INDEXER, "index_ indexer_ sparse_att"),
    (Meaning.STREAMS, "hc_ hyper_connection n_streams num_streams mhc_"),
    (Meaning.STATE, "ssm mamba lru rwkv linear_ conv recurrent delta kda state gla_ retention"),
    (Meaning.STATE, "lightning time_step dt_ expand rglru hyena xlstm slstm mlstm"),
    (Meaning.BLOCKS, "block_type layers_block hybrid layout"),
    (Meaning.PATTERN, "pattern layer_types _types type_list"),
    (Meaning.PATTERN, "every_n interval period offset layer_group layers_enum _idxs _indices"),
    (Meaning.PATTERN, "_freq full_attn attn_layer attention_layer schedule"),
    (Meaning.GATE, "gate gating gated"),
    (Meaning.FFN, "ffn mlp feed_forward feedforward"),
)
_LISTED = tuple((meaning, tuple(words.split())) for meaning, words in _WORDS)
_TEXTS = (
    Meaning.PATTERN,
    Meaning.BLOCKS,
    Meaning.PLACEMENT,
    Meaning.TOWER,
    Meaning.GATE,
    Meaning.WINDOW,
)
_ONE = (Meaning.MTP, Meaning.PATTERN, Meaning.BLOCKS, Meaning.STATE, Meaning.PLACEMENT)
"""Meanings for which even 1 says something."""
_NOTHING = (None, False, 0, "", "none", "None", "default", "full")


def judge(unread: Iterable[tuple[str, str, Any]]) -> tuple[Unread, ...]:
    """Those of the keys that can carry size."""
    unread_keys = []
    for path, key, value in unread:
        meaning = meaning_of(key, value)
        if meaning is not None:
            unread_keys.append(Unread(path, key, value, meaning))
    return tuple(unread_keys)


def foreign_keys(section: ReadKeys) -> tuple[Unread, ...]:
    """Counts that a known family's file has no business to have: experts, loops, shared caches."""
    return tuple(
        key
        for key in new_keys(section)
        if key.meaning in FOREIGN and not isinstance(key.value, bool)
    )


def new_keys(section: ReadKeys, path: str = "") -> tuple[Unread, ...]:
    """Keys that a known family left and that can carry size, but for numbers that it read."""
    return without_said(judge(section.unread(path)), section)


def without_said(keys: Iterable[Unread], section: ReadKeys) -> tuple[Unread, ...]:
    """`keys` without those that say again, alone or in a list, a number that was read of a
    section: under another name it says nothing new."""
    read = {x for key in section.read if isinstance(x := section.peek(key), int)}

    def said(value: Any) -> bool:
        listed = value if isinstance(value, list) else [value]
        return all(isinstance(x, int) and not isinstance(x, bool) and x in read for x in listed)

    return tuple(key for key in keys if not said(key.value))


def meaning_of(key: str, value: Any) -> Meaning | None:
    """What a key may mean for the sizes of a model; None where it carries none."""
    name = str(key).lower()  # a config that was built in Python may have numbers for keys
    off = _says_nothing(value) or (value is True and name.startswith("no_"))
    if off or name in _PLAIN_NAMES or name.endswith(_PLAIN_ENDINGS):
        return None
    if isinstance(value, dict) and ("rope" in name or "rotary" in name):
        return None
    word = next((m for m, words in _LISTED if any(w in name for w in words)), None)
    strong = word in (Meaning.LOOP, Meaning.SHARING, Meaning.OTHER)
    sizes = _is_size(value) and not isinstance(value, float)
    if any(w in name for w in _PLAIN_WORDS) and not (strong and sizes):
        return None
    if word is Meaning.FFN and value is not True:
        word = None  # a number of an FFN is no longer a matter of more or less
    if word is not None:
        return word if _may_be_size(value, word) else None
    return None if not _is_size(value) or _weakly_plain(name) else Meaning.UNNAMED


def _weakly_plain(name: str) -> bool:
    """Tokens' ids, lengths and the like: whole numbers that are no sizes of weights."""
    words = "token _id position length seq_len max_seq version seed year freq_base".split()  # noqa: SIM905
    words += "no_rope nope_layer pad_ eos bos beta warmup batch max_window languages".split()  # noqa: SIM905
    words += "license tags no_split keys_to_ignore".split()  # noqa: SIM905
    return any(word in name for word in words)


def _says_nothing(value: Any) -> bool:
    """Null, false, zero, negative or empty: whatever it names is off."""
    if isinstance(value, (list, dict)):
        return not value or (
            isinstance(value, list) and all(x is None or x is False or x == 0 for x in value)
        )
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return not value > 0
    return value in _NOTHING


def _is_size(value: Any) -> bool:
    """Whether a value alone, whatever its name, may be a size."""
    if isinstance(value, list):
        return any(isinstance(x, (int, str, dict, list)) for x in value)
    if isinstance(value, float):
        return value.is_integer() and value > 1
    return isinstance(value, dict) or (
        isinstance(value, int) and not isinstance(value, bool) and value > 1
    )


def _may_be_size(value: Any, word: Meaning) -> bool:
    """Whether a value fits a name that speaks of sizes."""
    if isinstance(value, float) and value < 1:
        return False
    if isinstance(value, str):
        return word in _TEXTS
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value != 1 or word in _ONE
    return True
