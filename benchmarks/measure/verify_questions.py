"""The hundred questions of the `verify` design: ten models, budgets, contexts, what matters.

The models differ in what memory depends on: grouped-query attention with 8, 4 and 2 KV heads,
multi-head attention (Phi, OLMo 2), windows (Gemma 3, gpt-oss), sinks and experts (gpt-oss, Qwen3),
vocabularies from 32,064 to 262,208.
"""

OUTPUT = 12  # tokens decoded in each run: few, since transformers takes 20 to 80 ms for each

LLAMA8, LLAMA3 = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.2-3B-Instruct"
QWEN3B, QWEN7B = "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
MISTRAL, GEMMA = "mistralai/Mistral-7B-Instruct-v0.3", "google/gemma-3-4b-it"
PHI, OLMO = "microsoft/Phi-3.5-mini-instruct", "allenai/OLMo-2-1124-7B-Instruct"
MOE, OSS = "Qwen/Qwen3-30B-A3B-Instruct-2507", "gpt-oss-20b-16bit"

K = 1024
QUESTIONS: dict[str, tuple[tuple[float, int, str], ...]] = {
    # model: (budget in GB, context, what matters); "transformers" asks for that engine
    LLAMA8: (
        (8, 2 * K, "accuracy"), (9, 8 * K, "latency"), (10, 32 * K, "accuracy"),
        (12, 16 * K, "accuracy"), (14, 65_536, "accuracy"), (18, 8 * K, "accuracy"),
        (20, 32 * K, "accuracy"), (24, 32 * K, "latency"), (20, 10_240, "transformers"),
        (40, 32 * K, "transformers"),
    ),
    LLAMA3: (
        (4, 2 * K, "accuracy"), (5, 16 * K, "accuracy"), (6, 24 * K, "accuracy"),
        (6, 8 * K, "latency"), (8, 4 * K, "accuracy"), (9, 131_072 - OUTPUT, "accuracy"),
        (10, 16 * K, "accuracy"), (16, 32 * K, "latency"), (10, 8 * K, "transformers"),
        (80, 2 * K, "accuracy"),
    ),
    QWEN3B: (
        (4, 4 * K, "accuracy"), (5, 16 * K, "accuracy"), (5, 32_000, "latency"),
        (6, 8 * K, "accuracy"), (7, 2 * K, "latency"), (8, 32_000, "accuracy"),
        (9, 16 * K, "accuracy"), (12, 24 * K, "accuracy"), (10, 10_240, "transformers"),
        (40, 32_000, "accuracy"),
    ),
    QWEN7B: (
        (8, 4 * K, "accuracy"), (9, 16 * K, "accuracy"), (10, 32_000, "accuracy"),
        (11, 8 * K, "latency"), (12, 24 * K, "accuracy"), (16, 2 * K, "accuracy"),
        (18, 16 * K, "accuracy"), (20, 32_000, "latency"), (24, 32_000, "transformers"),
        (64, 8 * K, "accuracy"),
    ),
    MISTRAL: (
        (6, 2 * K, "accuracy"), (7, 16 * K, "accuracy"), (8, 32_000, "accuracy"),
        (9, 8 * K, "accuracy"), (10, 24 * K, "latency"), (12, 32_000, "accuracy"),
        (16, 4 * K, "accuracy"), (18, 32_000, "accuracy"), (20, 16 * K, "transformers"),
        (48, 32_000, "latency"),
    ),
    GEMMA: (
        (5.5, 4 * K, "accuracy"), (6, 32 * K, "accuracy"), (6, 8 * K, "latency"),
        (7, 16 * K, "accuracy"), (8, 131_072 - OUTPUT, "accuracy"), (9, 2 * K, "accuracy"),
        (10.5, 32 * K, "accuracy"), (11, 65_536, "latency"), (14, 8 * K, "transformers"),
        (30, 32 * K, "accuracy"),
    ),
    PHI: (
        (5, 4 * K, "accuracy"), (6, 8 * K, "accuracy"), (8, 32 * K, "accuracy"),
        (9, 16 * K, "latency"), (10, 2 * K, "accuracy"), (18, 24 * K, "accuracy"),
        (14, 8 * K, "accuracy"), (20, 16 * K, "accuracy"), (24, 16 * K, "transformers"),
        (60, 32 * K, "accuracy"),
    ),
    OLMO: (
        (6.5, 2 * K, "accuracy"), (7, 4000, "accuracy"), (8, 3 * K, "latency"),
        (9, 4000, "accuracy"), (10, 2 * K, "latency"), (12, 4000, "accuracy"),
        (16, 3 * K, "accuracy"), (18, 4000, "accuracy"), (24, 4000, "transformers"),
        (70, 2 * K, "accuracy"),
    ),
    MOE: (
        (20, 4 * K, "accuracy"), (22, 16 * K, "latency"), (34, 8 * K, "accuracy"),
        (40, 16 * K, "accuracy"), (66, 2 * K, "accuracy"), (70, 24 * K, "accuracy"),
        (80, 16 * K, "latency"), (65, 8 * K, "accuracy"), (68, 32 * K, "accuracy"),
        (72, 16 * K, "transformers"),
    ),
    OSS: (
        (24, 4 * K, "accuracy"), (25, 12 * K, "accuracy"), (26, 16 * K, "latency"),
        (27, 24 * K, "accuracy"), (44, 8 * K, "accuracy"), (44, 2 * K, "latency"),
        (45, 32 * K, "accuracy"), (46, 131_072 - OUTPUT, "accuracy"), (60, 16 * K, "accuracy"),
        (80, 32 * K, "latency"),
    ),
}  # fmt: skip
