"""From a configuration to vLLM's options, and what the release refuses on the way."""

from ...errors import BadInput
from ...formats.configuration import Configuration
from ...hardware.gpus import Hardware
from ...memory.weights import available_weight_bits
from ...models.spec import ModelSpec
from ...workload import Workload
from .layer_pages import STATE_A_BLOCK
from .plugin import BACKEND
from .plugin import cache_obstacle as plugin_obstacle
from .rules import batch_defaults, cache_obstacle, own_obstacle, weight_obstacle
from .settings import VERSION, ServeSettings

NO_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "plamo2", "glm4")
"""Model types that overflow there (_FLOAT16_NOT_SUPPORTED_MODELS)."""


def settings_of(
    spec: ModelSpec,
    config: Configuration,
    workload: Workload,
    gpus: tuple[Hardware, ...],
    *,
    plugin: bool = False,
) -> ServeSettings:
    """Options for one configuration, before cards share the model. `plugin`: attention is this
    project's. Raises BadInput."""
    if spec.dtype == "float32":
        raise BadInput(
            "servers are planned in 16 bits, and float32 was asked", "--dtype bfloat16 or float16"
        )
    if spec.dtype == "float16" and spec.model_type in NO_FLOAT16:
        raise BadInput(
            f"vLLM {VERSION} does not run {spec.model_type} in float16",
            "--dtype bfloat16, on a card that has it",
        )
    name = weight_name(spec, config)
    dtype = cache_dtype(config)
    own = spec.quantization.method if spec.quantization is not None else ""
    for gpu in dict.fromkeys(gpus):
        stored = own_obstacle(own, gpu)
        for obstacle in (cache_obstacle(spec, dtype, gpu), weight_obstacle(name, gpu), stored):
            if obstacle is not None:
                other = "choose another format"
                if obstacle == stored:
                    other = "a newer GPU, or a checkpoint of the model in another format"
                raise BadInput(f"vLLM {VERSION} on {gpu.name}: {obstacle}", other)
    if plugin and (obstacle := plugin_obstacle(spec, dtype)) is not None:
        raise BadInput(
            f"vLLM with the plugin: {obstacle}",
            "kint4_per_token_headvint4_per_token_head or kint8_per_token_headvint8_per_token_head",
        )
    if spec.max_context is not None and workload.tokens > spec.max_context:
        raise BadInput(
            f"vLLM refuses --max-model-len {workload.tokens}: the model was made for "
            f"{spec.max_context:,} tokens",
            f"--context {max(1, spec.max_context - workload.output)} or less: that is the prompt, "
            f"which {workload.output} tokens of output follow",
        )
    chunk = config.chunk or batch_defaults(gpus[0])[0]
    return ServeSettings(
        max_model_len=workload.tokens,
        kv_cache_dtype=dtype,
        max_num_batched_tokens=max(chunk, workload.batch),
        max_num_seqs=workload.batch,
        quantization=name,
        prefix_caching=spec.model_type not in STATE_A_BLOCK,
        attention_backend=BACKEND if plugin else "",
        dtype=run_dtype(spec),
    )


def run_dtype(spec: ModelSpec) -> str:
    """The value of --dtype: that of the plan where it is not the checkpoint's own."""
    return spec.dtype if spec.stored_dtype else "auto"


def weight_name(spec: ModelSpec, config: Configuration) -> str:
    """The format that the engine is to hold the weights in, "" as they are. Raises BadInput."""
    name = config.weight_format
    own = spec.quantization
    bits = available_weight_bits(spec)[0]
    if own is not None:
        if config.weight_bits == bits and (not name or name.startswith(own.method[:3])):
            return ""
        raise BadInput(
            f"{spec.name} is stored in {own.method}, and vLLM runs it as it is, not as {config}",
            f"w{bits}a16 is its own format",
        )
    if name or config.weight_bits == 16:
        return name
    near = "fp8, made at the start" if config.weight_bits == 8 else "awq, a checkpoint of its own"
    raise BadInput(
        f"vLLM has no weights in w{config.weight_bits}a16, in {config}",
        f"name the format: {near}: w{near.split(',')[0]}-…",
    )


def cache_dtype(config: Configuration) -> str:
    """The value of --kv-cache-dtype. Raises BadInput for caches that it does not have."""
    keys, values = config.k_format, config.v_format
    plain = config.protection is None and not config.dynamic_chunk
    if (
        plain
        and (config.k_bits, config.v_bits) == (16, 16)
        and not ({keys, values} - {"", "bf16", "f16"})
    ):
        return "auto"
    if plain and keys and keys == values:
        return keys
    raise BadInput(
        f"vLLM has no cache of {config}",
        "K and V have one format: k16v16, kfp8vfp8, kint8_per_token_headvint8_per_token_head, "
        "kint4_per_token_headvint4_per_token_head",
    )
