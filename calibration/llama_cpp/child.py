"""The process in which llama.cpp runs as a library: one JSON of settings in, one line of JSON out.

A process of its own, because llama.cpp writes its log to the file descriptor of stderr, ends the
process where a file is broken, and gives its memory back only at its end.
"""

import json
import sys
import time
from typing import Any

IMPORTED = "imported"
"""The line that says that the library is whole; without it the import failed, or crashed."""


def main() -> None:
    """Settings from the first argument; on stdout what was measured; the log is on stderr."""
    import xllamacpp

    print(IMPORTED, flush=True)
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = wanted["path"]
    params.n_ctx, params.n_parallel = wanted["context"], wanted["sequences"]
    params.n_ubatch, params.n_batch = wanted["micro_batch"], wanted["batch"]
    params.cache_type_k = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{wanted['keys'].upper()}")
    params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{wanted['values'].upper()}")
    flash = "ENABLED" if wanted["flash"] else "DISABLED"
    kinds = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = getattr(kinds, f"LLAMA_FLASH_ATTN_TYPE_{flash}")
    params.swa_full, params.kv_unified = wanted["swa_full"], wanted["unified"]
    params.n_gpu_layers = wanted.get("gpu_layers", -1)
    params.fit_params, params.warmup, params.verbosity = False, bool(wanted["prompts"]), 5
    if wanted.get("threads"):
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = wanted["threads"]
    server = xllamacpp.Server(params)
    answers = [
        server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": wanted["predict"],
                "ignore_eos": True,
                "temperature": 0,
                "cache_prompt": False,
            }
        )
        for prompt in wanted["prompts"]
    ]
    time.sleep(0.4)  # a server that ends before its loop has begun waits for ever
    version = getattr(xllamacpp, "__version__", "")
    measured = {"answers": answers, "version": str(version), "resident": _peak_resident()}
    print(json.dumps(measured), flush=True)


def _peak_resident() -> int | None:
    """Bytes that this process held at most, where the system says so (not on Windows).

    Linux starts ru_maxrss at what the process held that started this one; VmHWM is its own.
    """
    try:
        with open("/proc/self/status") as status:
            (own,) = [line.split()[1] for line in status if line.startswith("VmHWM:")]
        return 1024 * int(own)
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
