"""Teacher-forced logits through the packed cache, held to transformers' own at every position."""

import pytest
import torch

from kvpareto.planner.errors import BadInput
from tests.support.runtime_builders import (
    FAMILIES,
    FORMATS,
    TOLERANCE,
    RoundedCache,
    relative_error,
    session,
    small_model,
)

PROMPT = torch.randint(3, 97, (1, 23), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def all_logits(family: str) -> torch.Tensor:
    model = small_model(family)
    model.set_attn_implementation("eager")
    return model(PROMPT, past_key_values=RoundedCache(config=model.config)).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunk", ["", "+pc5"], ids=["one-shot", "chunk-5"])
def test_every_position_equals_transformers(family: str, chunk: str) -> None:
    with session(small_model(family), "w16a16-k16v16" + chunk, tokens=40) as run:
        found = torch.cat(list(run.logits(PROMPT, torch.arange(23))), dim=1)
    assert relative_error(found, all_logits(family)) < TOLERANCE


@pytest.mark.parametrize("text", FORMATS)
def test_the_last_position_is_what_prefill_gives(text: str) -> None:
    with session(small_model("llama"), text + "+pc64", tokens=40) as run:
        (found,) = run.logits(PROMPT, torch.tensor([22]))
        assert torch.equal(found[:, -1], run.prefill(PROMPT))


def test_only_the_asked_positions_come_chunk_by_chunk() -> None:
    with session(small_model("llama"), "w16a16-k16v16+pc5", tokens=40) as run:
        whole = torch.cat(list(run.logits(PROMPT, torch.arange(23))), dim=1)
        parts = list(run.logits(PROMPT, torch.tensor([0, 4, 11, 22])))
        others = list(run.logits(PROMPT, torch.tensor([0, 4, 11, 22]), chunks=[12, 11]))
    assert [part.shape[1] for part in parts] == [2, 1, 1]  # chunks 0-4, 10-14 and 20-22
    assert [part.shape[1] for part in others] == [3, 1]
    for some in (parts, others):
        assert relative_error(torch.cat(some, dim=1), whole[:, [0, 4, 11, 22]]) < TOLERANCE


def test_padded_sequences_answer_as_alone() -> None:
    rows = [PROMPT[0].tolist(), PROMPT[0, 9:].tolist()]
    with session(small_model("llama"), "w16a16-k16v16+pc5", tokens=40, batch=2) as run:
        together = torch.cat(list(run.logits(rows, torch.arange(9, 23))), dim=1)
    with session(small_model("llama"), "w16a16-k16v16+pc5", tokens=40) as run:
        for row, found in zip(rows, together, strict=True):
            last = torch.arange(len(row) - 14, len(row))
            alone = torch.cat(list(run.logits([row], last)), dim=1)
            assert relative_error(found[None], alone) < TOLERANCE


def test_what_does_not_fit_is_refused() -> None:
    with session(small_model("llama"), "w16a16-k16v16", tokens=20) as run:
        with pytest.raises(BadInput, match="23 tokens does not fit"):
            run.logits(PROMPT, torch.tensor([0]))
        with pytest.raises(BadInput, match="positions 5 to 12"):
            list(run.logits(PROMPT[:, :12], torch.tensor([5, 12])))
