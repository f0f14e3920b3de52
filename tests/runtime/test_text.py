"""Between text and tokens: streamed pieces are whole characters, stop tokens come from anywhere."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kvpareto.planner.errors import BadInput
from kvpareto.runtime.generation.tokenization import encode, stop_tokens, stream_text


class ByteTokenizer:
    """One token a byte; 0 ends a text."""

    eos_token_id = 0
    chat_template = None

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return bytes(i for i in ids if i or not skip_special_tokens).decode(errors="replace")

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}


TOKENIZER: Any = ByteTokenizer()


@pytest.mark.parametrize(
    ("data", "pieces"),
    [
        pytest.param("né!".encode(), ["n", "é", "!"], id="held-back-inside-a-character"),
        pytest.param(b"a\nb", ["a", "\n", "b"], id="after-a-line"),
        pytest.param(b"ab\0cd", ["a", "b"], id="stops"),
        pytest.param(b"a\xc3", ["a", "\N{REPLACEMENT CHARACTER}"], id="ends-inside-a-character"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_pieces_of_a_stream(data: bytes, pieces: list[str]) -> None:
    assert list(stream_text(data, TOKENIZER, frozenset({0}))) == pieces


def test_stop_tokens_are_those_that_anything_names() -> None:
    text = SimpleNamespace(eos_token_id=7)
    model: Any = SimpleNamespace(
        generation_config=SimpleNamespace(eos_token_id=[5, 6]),
        config=SimpleNamespace(get_text_config=lambda: text),
    )
    assert stop_tokens(model, TOKENIZER) == {0, 5, 6, 7}
    text.eos_token_id = None
    assert stop_tokens(model, None) == {5, 6}


@pytest.mark.parametrize(
    ("prompt", "ids", "padding"),
    [
        pytest.param("ab", [[97, 98]], [0], id="text"),
        pytest.param(["ab", "c"], [[97, 98], [9, 99]], [0, 1], id="texts"),
        pytest.param([3, 4], [[3, 4]], [0], id="ids"),
        pytest.param([[3], [4, 5]], [[9, 3], [4, 5]], [1, 0], id="rows-of-ids"),
        pytest.param(torch.tensor([3, 4]), [[3, 4]], [0], id="tensor"),
    ],
)
def test_prompts_are_padded_on_the_left(
    prompt: Any, ids: list[list[int]], padding: list[int]
) -> None:
    found, starts = encode(prompt, TOKENIZER, pad_id=9)
    assert (found.tolist(), starts.tolist()) == (ids, padding)


def test_messages_need_a_chat_template() -> None:
    with pytest.raises(BadInput, match="no chat template"):
        encode([{"role": "user", "content": "hi"}], TOKENIZER, pad_id=9)
