"""What vLLM calls the plugin's parts."""

BACKEND = "kvpareto.runtime.vllm_plugin.backend.PackedAttentionBackend"
"""Behind `--attention-backend CUSTOM`."""
QUANTIZATION = "kvpareto_awq"
"""Of `--quantization`."""
