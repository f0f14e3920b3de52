"""A model's key biases and norms, read off a hub repository whose checkpoint is not at hand.

Headers, then ranges of the same tensors as of a folder (checkpoint_keys.py). Rows of projections,
which say how wide channels are, are thousands of ranges in a model of many layers: where they
are more than MOST_ROWS or do not fit, channels are taken as of width 1, as those of a GGUF file.
"""

import re
from pathlib import Path

from ...models.checkpoint_tensors import CheckpointTensors
from ...models.hub_ranges import HubRepository, fetch_all
from ...models.spec import ModelSpec
from .checkpoint_keys import ROWS, key_layers_of
from .key_simulation import KeyLayer

MOST_ROWS = 512
_VECTORS = re.compile(
    r"\.(?:self_attn\.[kq]_(?:proj\.bias|norm\.weight|layernorm\.weight)"
    r"|(?:self_attention\.query_key_value|attn\.c_attn)\.bias)$"
)
_NORMS = re.compile(r"\.input_layernorm\.weight$")
_MATRICES = re.compile(r"\.self_attn\.[kq]_proj\.weight$")


def hub_key_layers(spec: ModelSpec, repo_id: str, snapshot: Path) -> tuple[KeyLayer, ...]:
    """The layers of the repository at the commit that `snapshot`, its folder in the hub's cache, is
    called. Raises KVParetoError, OSError and huggingface_hub's exceptions."""
    repository = HubRepository(repo_id, snapshot.name)
    tensors = CheckpointTensors(repository.files(_VECTORS))
    names = tensors.names()
    vectors = [s for n in names if _VECTORS.search(n) and (s := tensors.span(n)) is not None]
    if not vectors:
        return ()
    norms = [s for n in names if _NORMS.search(n) and (s := tensors.span(n)) is not None]
    matrices = [name for name in names if _MATRICES.search(name)]
    rows = [span for name in matrices for span in tensors.row_spans(name, ROWS)]
    wide = [*norms, *rows]
    needed = sum(last - first for _, first, last in (*vectors, *wide))
    if len(rows) > MOST_ROWS or needed > repository.bytes_left():
        tensors.forget(matrices)
        wide = []
    fetch_all((*vectors, *wide))
    return key_layers_of(spec, tensors, snapshot)
