"""Models for the accuracy tests: real shapes by their hub ids, and invented ones."""

from functools import lru_cache

from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec

QWEN25_7B = "Qwen/Qwen2.5-7B-Instruct"
LLAMA31_8B = "meta-llama/Llama-3.1-8B-Instruct"
MISTRAL_7B = "mistralai/Mistral-7B-Instruct-v0.3"
UNSEEN = "example/unseen-3b"
UNSEEN_BIASED = "example/unseen-biased-3b"
LATENT = "deepseek-ai/DeepSeek-V3"


@lru_cache(maxsize=16)
def spec_of(name: str) -> ModelSpec:
    """A bundled model, or one that no table knows, with or without a bias on its keys."""
    if not name.startswith("example/"):
        return load_model(name, offline=True)
    config = {
        "model_type": "llama",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "num_hidden_layers": 24,
        "vocab_size": 56000,
        "max_position_embeddings": 32768,
        "attention_bias": name == UNSEEN_BIASED,
        "tie_word_embeddings": False,
    }
    return read_model(config, name)
