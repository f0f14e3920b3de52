"""Model types that are known and refused, each with its reason.

A refusal names the type and the reason, so that nobody looks for the fault in a file.
"""

from functools import partial

from ....errors import BadConfig
from ...config_fields import Fields
from ...tensor_list import Tensors
from ..decoder import Decoder

_DRAFTS = "it drafts for another model and reads that model's cache"
_SEES = "its decoder reads an encoder's output in layers of its own"
_REASONS = {
    "gemma4_assistant": _DRAFTS,
    "gemma4_unified_assistant": _DRAFTS,
    "blip": _SEES,
    "blip-2": "a querying transformer stands between its towers",
    "instructblip": "a querying transformer stands between its towers",
    "instructblipvideo": "a querying transformer stands between its towers",
    "florence2": _SEES,
    "idefics": _SEES,
    "kosmos-2": _SEES,
    "kosmos-2.5": _SEES,
    "evolla": "it answers about proteins, through an encoder of theirs",
    "diffusion_gemma": "it writes blocks by diffusion, not token by token",
    "pi0": "it moves a robot; it writes no text",
    "moshi": "it speaks and hears at once, through an audio codec of its own",
    "blt": "it reads bytes in patches of no fixed length, through models of its own",
    "openai-gpt": "its code keeps no cache",
    "xlnet": "it predicts permuted positions and keeps no keys and values",
    "reformer": "it hashes its attention and keeps buckets, not keys and values",
    "deepseek_vl_hybrid": "its two vision towers are not described in this version",
    "chameleon": "the quantizer of its images is not described in this version",
    "emu3": "the quantizer of its images is not described in this version",
    "granite_docling": "its vision tower is not described in this version",
    "inkling_mm_model": "its towers and its default experts are not described in this version",
    "molmo2": "its vision adapter is not described in this version",
    "cosmos3_edge": "its towers for the physical world are not described in this version",
    "moss_transcribe_diarize": "its audio towers are not described in this version",
    "inkling2": "its residual attention over blocks is not described in this version",
    "inkling2_text": "its residual attention over blocks is not described in this version",
}


def refuse(f: Fields, t: Tensors, reason: str) -> Decoder:
    raise BadConfig(
        f"{f.kind} is not planned: {reason}",
        "docs/models.md lists what is; choose a decoder-only model, such as Qwen/Qwen3-8B",
    )


READERS = {kind: partial(refuse, reason=reason) for kind, reason in _REASONS.items()}
