"""Model types by what llama.cpp does differently in their graph (src/models, build 11434)."""

GEMMA4 = frozenset({"gemma4_text", "gemma4"})
"""Gemma 4: values with a norm, rows behind the last norm, inputs of each layer."""
NORMS_BEHIND = frozenset({"olmo2", "olmo3", "exaone4"})
"""Model types with norms behind attention and feed-forward layers alone."""
FUSED = frozenset({"phi3"})
"""Model types whose queries, keys and values are one product, of which they are views."""
RESIDUAL_FIRST = frozenset({"jamba", "lfm2", "lfm2_moe"})
"""Model types that add a layer's output to the residual stream, not the stream to the output."""
FOUR_POSITIONS = frozenset({"qwen3_5_text", "qwen3_5_moe_text", "qwen3_5", "qwen3_5_moe"})
"""Model types whose tokens have a place in time, height and width too (M-RoPE)."""
NO_ROTATION = frozenset({"jamba", "nemotron_h", "granitemoehybrid", "bloom"})
"""Model types whose attention does not turn keys in any file that is published."""
ATTENTION_LAST = frozenset({"cohere", "cohere2"})
"""Of parallel layers those that add the feed-forward's output to the stream first."""
NORM_FIRST = FOUR_POSITIONS | {"qwen3_next"}
"""Model types whose norm comes before a recurrent layer's states are read."""
ROWS_BEHIND_NORM = NORM_FIRST | GEMMA4 | {"nemotron_h"}
"""Model types that pick the rows of logits behind the last norm, which is kept for drafts."""
REPEATED_KEYS = frozenset({"qwen3_next"})
"""Gated delta nets whose key heads are repeated for each value head before the scan."""
ONE_GATE_PRODUCT = frozenset({"qwen3_next"})
"""Gated delta nets whose two gates are one product."""
SCALED_STEPS = frozenset({"falcon_mamba"})
"""Mamba 1 with norms that have no weights over the step, B and C."""
