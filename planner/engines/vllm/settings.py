"""What vLLM is started with, as far as memory depends on it, and the command that says so."""

from dataclasses import dataclass

from ...errors import BadInput

VERSION = "0.26.0"
"""The release whose source the rules of this folder were read from, and which was run."""
KV_DTYPES = (
    "auto",
    "fp8",
    "fp8_per_token_head",
    "int8_per_token_head",
    "int4_per_token_head",
    "nvfp4",
)
"""Values of --kv-cache-dtype that are planned; rules.py says which cards have them."""

ONLINE = {"fp8": "fp8", "nf4": "bitsandbytes"}
"""Weights that the engine makes itself of a checkpoint in 16 bits, by the value of
--quantization."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Options of `vllm serve` by their own names. The utilization is vLLM's default; a server on a
    card of 70 GiB and more takes chunks of 8,192 tokens and 1,024 sequences, others 2,048 and 256.
    """

    max_model_len: int
    kv_cache_dtype: str = "auto"
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    gpu_memory_utilization: float = 0.92
    enforce_eager: bool = False
    quantization: str = ""
    """The weights' named format; empty: 16 bits, or as the checkpoint stores them."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    """Experts are spread whole over the tensor and data parallel ranks."""
    prefix_caching: bool = True
    """What a prompt begins with is kept for others. Recurrent states are then kept twice."""
    attention_backend: str = ""
    """Empty: as vLLM chooses; CUSTOM: this project's plugin."""
    dtype: str = "auto"
    """Of what is not quantized: `auto` is the checkpoint's."""

    def __post_init__(self) -> None:
        if self.kv_cache_dtype not in KV_DTYPES:
            raise BadInput(
                f"--kv-cache-dtype {self.kv_cache_dtype!r} is not planned for vLLM",
                f"planned are {', '.join(KV_DTYPES)}",
            )
        sizes = self.max_model_len, self.max_num_batched_tokens, self.max_num_seqs
        if min(sizes) < 1 or max(sizes) > 2**31:
            raise BadInput(
                "max_model_len, max_num_batched_tokens and max_num_seqs are at least 1",
                "give numbers of tokens and of sequences",
            )
        parallel = self.tensor_parallel, self.pipeline_parallel, self.data_parallel
        if min(parallel) < 1 or max(parallel) > 1024:
            raise BadInput(
                f"parallel sizes {', '.join(map(str, parallel))} share a model among no cards",
                "tensor, pipeline and data parallel sizes are at least 1",
            )
        if not 0 < self.gpu_memory_utilization <= 1:
            raise BadInput(
                f"--gpu-memory-utilization {self.gpu_memory_utilization} is no part of a GPU",
                "give a number above 0 and at most 1, such as 0.92",
            )

    @property
    def in_flight(self) -> int:
        """Tokens scheduled and not settled: two batches overlap (asynchronous scheduling), or one
        for each pipeline stage and another."""
        return (self.pipeline_parallel + 1) * self.max_num_batched_tokens

    @property
    def cards(self) -> int:
        """Cards that it fills."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    def flags(self) -> dict[str, str]:
        """Every option by its flag; what is the default of one card is left out."""
        said = {
            "--max-model-len": str(self.max_model_len),
            "--kv-cache-dtype": self.kv_cache_dtype,
            "--max-num-batched-tokens": str(self.max_num_batched_tokens),
            "--max-num-seqs": str(self.max_num_seqs),
            "--gpu-memory-utilization": f"{self.gpu_memory_utilization:g}",
        }
        if self.dtype != "auto":
            said["--dtype"] = self.dtype
        for name in ("tensor", "pipeline", "data"):
            if (size := getattr(self, f"{name}_parallel")) > 1:
                said[f"--{name}-parallel-size"] = str(size)
        if self.expert_parallel:
            said["--enable-expert-parallel"] = ""
        if not self.prefix_caching:
            said["--no-enable-prefix-caching"] = ""
        if self.attention_backend:
            said["--attention-backend"] = self.attention_backend
        if self.quantization in ONLINE:
            said["--quantization"] = ONLINE[self.quantization]
        return said | ({"--enforce-eager": ""} if self.enforce_eager else {})

    def command(self, model: str) -> str:
        """The line to type."""
        from shlex import join

        words = [word for pair in self.flags().items() for word in pair if word]
        return join(["vllm", "serve", model, *words])
