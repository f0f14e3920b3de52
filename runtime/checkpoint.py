"""A checkpoint's files, looked at before transformers reads them, and what it says afterwards.

transformers fills tensors that a checkpoint lacks with random numbers, anew at each load, falls
back to pickle where there are no safetensors, and leaves damaged files to whoever reads them
first. Here a folder is refused by name before any weight is read (a file that is missing, empty,
cut short, pickled, no file at all), and a load by the names that transformers reports.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..planner.errors import BadConfig, BadInput
from ..planner.models.checkpoint_tensors import INDEX, MAX_INDEX, SINGLE
from ..planner.models.untrusted_json import read_json_object
from .failures import reading

CONFIG = "config.json"
GENERATION = "generation_config.json"
AGAIN = "download the checkpoint again, whole"
_PICKLES = ("pytorch_model*.bin*", "*.bin", "*.pt", "*.pth", "*.ckpt")
_BOM = b"\xef\xbb\xbf"

# Tensors that a model of text has no place for, and that change nothing that it says.
_IGNORED = re.compile(
    r"(^|\.)rotary_emb\.inv_freq$"  # computed from the config since transformers 4.32
    r"|(^|\.)(attn|attention)\.(masked_)?bias$"  # causal masks that GPT-2's kin stored
    r"|(^|\.)position_ids$"
    r"|(^|\.)(mtp|mtp_layers|nextn)(\.|$)"  # multi-token prediction: drafts, not the answer
    r"|(^|\.)(visual|vision_\w+|audio_\w+|image_\w+|multi_modal_\w+|mm_\w+|embed_vision"
    r"|embed_audio|speech_\w+|video_\w+)(\.|$)"
)


def check_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises BadInput for one that transformers would stumble over, and
    for a generation_config.json, which names the stop tokens, that is no JSON."""
    path = folder / CONFIG
    config = read_json_object(path)
    _check_mark(path)
    if not isinstance(config.get("model_type"), str):
        raise BadInput(
            f"{CONFIG} of {folder.name} names no model_type, so transformers cannot build it",
            "compare with the model's published config.json",
        )
    if (folder / GENERATION).exists():  # transformers passes over one that it cannot read
        read_json_object(folder / GENERATION)
        _check_mark(folder / GENERATION)
    return config


def _check_mark(path: Path) -> None:
    """Raise BadInput for a file of JSON with a byte-order mark, which we read and libraries not."""
    with path.open("rb") as file:
        if file.read(len(_BOM)) == _BOM:
            raise BadInput(
                f"{path.name} of {path.parent.name} begins with a byte-order mark, which "
                "transformers does not read",
                "save it as UTF-8 without a byte-order mark (BOM)",
            )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights, as transformers chooses them: the single file
    before an index.

    Raises BadInput for a folder without them, with pickles only, or with an index that is none.
    """
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if not (folder / INDEX).exists():
        raise _nothing_to_read(folder)
    try:
        index = read_json_object(folder / INDEX, MAX_INDEX)
    except BadConfig as error:
        raise BadInput(f"{folder.name}: {error.message}", AGAIN) from None
    _check_mark(folder / INDEX)
    shards = index.get("weight_map")
    names = set(shards.values()) if isinstance(shards, dict) and _are_texts(shards) else set()
    if not names:
        raise BadInput(f"{INDEX} of {folder.name} says of no tensor which file it is in", AGAIN)
    for name in sorted(names):
        if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts:
            raise BadInput(
                f"{INDEX} of {folder.name} names a file outside the folder: {name}", AGAIN
            )
    if not isinstance(index.get("metadata"), dict):
        raise BadInput(
            f"{INDEX} of {folder.name} has no object `metadata`, without which transformers reads "
            "none of the files",
            f'{AGAIN}, or add "metadata": {{}} to it',
        )
    return [folder / name for name in sorted(names)]


def check_files(folder: Path) -> list[Path]:
    """The weight files, each whole by its own header. Raises BadInput, naming the file.

    The library checks a header and that tensors fill the file to its end; values are not read.
    """
    from safetensors import safe_open

    files = weight_files(folder)
    for file in files:
        if not file.exists():
            raise BadInput(f"{folder.name} lacks {file.name}, which {INDEX} names", AGAIN)
        if not file.is_file():
            raise BadInput(f"{file.name} of {folder.name} is not a file", AGAIN)
        if file.stat().st_size == 0:
            raise BadInput(f"{file.name} of {folder.name} is empty", AGAIN)
        with (
            reading(f"{file.name} of {folder.name}", AGAIN),
            safe_open(str(file), framework="pt") as opened,
        ):
            opened.keys()
    return files


def check_loaded(name: str, loading_info: Mapping[str, Any], layers: int, drafts: int) -> None:
    """Raise BadInput where a load left tensors without a value, without a place or ill-shaped.

    `loading_info` is transformers' own, with tied and ignorable tensors taken off; `layers` and
    `drafts` count decoder layers, and those of multi-token prediction stored behind them.
    """
    for key, stored, wanted in sorted(loading_info.get("mismatched_keys") or ()):
        raise BadInput(
            f"{name} stores {key} as {_shape(stored)}, config.json says {_shape(wanted)}",
            "config.json and the weights do not belong together",
        )
    missing = sorted(loading_info.get("missing_keys") or ())
    if missing:
        raise BadInput(
            f"{name} does not store {_counted(missing)}, which would be filled with random numbers",
            AGAIN,
        )
    strangers = sorted(
        key
        for key in loading_info.get("unexpected_keys") or ()
        if not is_ignorable(key, layers, drafts)
    )
    if strangers:
        raise BadInput(
            f"{name} stores {_counted(strangers)}, which its config.json has no place for",
            "config.json and the weights do not belong together, or transformers is too old",
        )


def is_ignorable(key: str, layers: int, drafts: int) -> bool:
    """Whether a stored tensor may be left unread: it is no part of the text model's answer."""
    if _IGNORED.search(key):
        return True
    number = re.search(r"(^|\.)layers\.(\d+)\.", key)
    return number is not None and layers <= int(number[2]) < layers + drafts


def draft_layers(config: Mapping[str, Any]) -> int:
    """Layers of multi-token prediction that a config says are stored behind the decoder's."""
    text = config.get("text_config")
    places = (config, text) if isinstance(text, Mapping) else (config,)
    counts = [
        place.get(key)
        for place in places
        for key in ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
    ]
    return max((count for count in counts if isinstance(count, int)), default=0)


@contextmanager
def without_bars() -> Iterator[None]:
    """No bar of tqdm is drawn, by whatever library: transformers has a switch of its own, and its
    GGUF reader draws beside it."""
    from tqdm.std import tqdm

    drawn = tqdm.__init__

    def disabled(bar: Any, *arguments: Any, **named: Any) -> None:
        drawn(bar, *arguments, **(named | {"disable": True}))

    tqdm.__init__ = disabled
    try:
        yield
    finally:
        tqdm.__init__ = drawn


def _nothing_to_read(folder: Path) -> BadInput:
    pickles = sorted({file.name for kind in _PICKLES for file in folder.glob(kind)})
    if pickles:
        return BadInput(
            f"{folder.name} stores its weights as pickle ({pickles[0]}), which can run code when "
            "it is read and is never read here",
            "convert it to safetensors where you trust it: "
            "model.save_pretrained(folder, safe_serialization=True)",
        )
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if others:
        return BadInput(
            f"{folder.name} has {others[0]}, but no {SINGLE} and no {INDEX}",
            "name the file as transformers does, or download the index too",
        )
    return BadInput(
        f"{folder.name} holds no weights: no {SINGLE} and no {INDEX}",
        "give a folder with safetensors files",
    )


def _are_texts(shards: Mapping[str, Any]) -> bool:
    return all(isinstance(name, str) and name for name in shards.values())


def _counted(names: Collection[str]) -> str:
    first, *rest = names
    return first if not rest else f"{first} and {len(rest)} more tensors"


def _shape(sizes: Collection[int]) -> str:
    return " x ".join(str(size) for size in sizes) or "one number"
