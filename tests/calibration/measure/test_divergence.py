"""Divergence from the unquantized model: by hand on small logits, and on a real tiny model."""

import math
from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from kvpareto.calibration.measure.divergence import (
    BLOCK,
    Divergence,
    check_windows,
    compare,
    compares_otherwise,
    divergence,
    tail_of,
    text_windows,
)
from kvpareto.calibration.tasks.scores import Score
from kvpareto.planner.errors import BadInput
from kvpareto.runtime import Session, load
from tests.support.data_files import STORIES

PLAIN = "w16a16-k16v16"
TEXT = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
    "park. One day, she saw a big red ball in the tree. She wanted to play with it, but it was "
    'too high. Her mom said, "Let\'s ask the bird for help." The bird was happy and gave the '
    "ball to Lily. They played together until the sun went down. "
) * 8


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(STORIES)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)


@pytest.fixture(scope="module")
def windows(tokenizer) -> torch.Tensor:
    return text_windows(tokenizer, TEXT, 160, count=4)


@pytest.fixture(scope="module")
def reference(model: PreTrainedModel) -> Iterator[Session]:
    with load(model, PLAIN, context=160, output=0) as session:
        yield session


def opened(model: PreTrainedModel, config: str, batch: int = 1) -> Session:
    return load(model, config, context=160, output=0, batch=batch)


def test_divergence_of_two_distributions_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), q = (1/4, 1/8, 5/8): KL(p || q) = 1/2 ln 2 + 1/4 ln 2 + 1/4 ln(2/5)
    p, q = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.25, 0.125, 0.625]).log()
    logits = torch.stack([p, p + 3.0])[None]  # a constant added to logits changes nothing
    other = torch.stack([q, p])[None]
    kl, same, nll, reference_nll = compare(logits, other, torch.tensor([[1, 0]]))
    assert kl[0].tolist() == pytest.approx([0.75 * math.log(2) - 0.25 * math.log(2.5), 0], abs=1e-7)
    assert same[0].tolist() == [0.0, 1.0]
    assert nll[0].tolist() == pytest.approx([math.log(8), math.log(2)])
    assert reference_nll[0].tolist() == pytest.approx([math.log(4), math.log(2)])


def test_tokens_that_both_exclude_add_nothing() -> None:
    # two tokens of three: p = (1/2, 1/2), q = (1/4, 3/4), KL = 1/2 ln 2 + 1/2 ln(2/3)
    never = -torch.inf
    p, q = torch.tensor([0.0, 0.0, never]), torch.tensor([0.25, 0.75, 0.0]).log()
    kl, *_ = compare(p[None, None], q[None, None], torch.tensor([[0]]))
    assert float(kl) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-7)


def test_the_unquantized_session_does_not_diverge_from_itself(model, reference, windows) -> None:
    with opened(model, f"{PLAIN}+pc64") as session:
        found = divergence(reference, session, windows)
    assert found.positions == 4 * 159
    assert found.kl.value == pytest.approx(0.0, abs=1e-9)
    assert found.top1.value == 1.0
    assert found.excess.value == pytest.approx(0.0, abs=1e-7)
    assert found.kl.stderr < 1e-9


def test_perplexity_is_the_models_own(model, reference, windows) -> None:
    # transformers' own loss, over float32 keys and values where a session holds bfloat16 ones
    own = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32)
    with torch.no_grad():
        losses = [own(row[None], labels=row[None]).loss for row in windows]
    with opened(model, PLAIN) as session:
        found = divergence(reference, session, windows)
    assert found.perplexity == pytest.approx(math.exp(torch.stack(losses).mean()), rel=0.002)
    assert found.perplexity == found.reference_perplexity
    assert found.perplexity_stderr == pytest.approx(found.perplexity * found.nll.stderr)


def test_fewer_bits_diverge_more(model, reference, windows) -> None:
    found = []
    for bits in (8, 4, 2):
        with opened(model, f"w16a16-k{bits}v{bits}+pc64") as session:
            found.append(divergence(reference, session, windows))
    kl = [one.kl.value for one in found]
    assert 0 < kl[0] < kl[1] < kl[2]
    assert found[0].top1.value > found[2].top1.value
    assert found[2].excess.value > 3 * found[2].excess.stderr  # loss that is not chance
    for one in found:
        assert len(one.kl.per_item) == 4 * 159 // BLOCK
        assert 0 < one.kl.stderr < one.kl.value


def test_batches_and_an_unfilled_last_one_change_nothing(model, reference, windows) -> None:
    config = "w16a16-k4v4+pc64"
    with opened(model, config) as session:
        single = divergence(reference, session, windows)
    with opened(model, PLAIN, batch=3) as plain, opened(model, config, batch=3) as session:
        batched = divergence(plain, session, windows)  # 3 windows, then 1
    assert batched.positions == single.positions
    assert batched.kl.value == pytest.approx(single.kl.value, rel=1e-4)


def test_rows_are_spread_over_each_chunk(model, reference, windows) -> None:
    with opened(model, "w16a16-k2v2") as session:
        few = divergence(reference, session, windows, rows=16)
        all_ = divergence(reference, session, windows)
    assert few.positions == 4 * 15  # the last of the 16 has no next token
    assert abs(few.kl.value - all_.kl.value) < 4 * few.kl.stderr


def test_windows_start_with_the_first_special_token(tokenizer) -> None:
    windows = text_windows(tokenizer, TEXT, 100)
    plain = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert windows.shape == (len(plain) // 99, 100)
    assert set(windows[:, 0].tolist()) == {tokenizer.bos_token_id}
    assert windows[:, 1:].flatten().tolist() == plain[: 99 * len(windows)]


def test_a_short_text_is_one_shorter_window(tokenizer) -> None:
    assert text_windows(tokenizer, "Once upon a time", 100).shape[0] == 1


def test_an_empty_text_is_refused(tokenizer) -> None:
    with pytest.raises(BadInput, match="fewer than 2 tokens"):
        text_windows(tokenizer, "", 100)


def test_sessions_that_cannot_keep_step_are_refused(model, reference, windows) -> None:
    with opened(model, PLAIN, batch=2) as session, pytest.raises(BadInput, match="batch 1 and 2"):
        divergence(reference, session, windows)
    with (
        opened(model, f"{PLAIN}+pc64") as chunked,
        opened(model, "w16a16-k8v8+pc128") as session,
        pytest.raises(BadInput, match="chunks of 64"),
    ):
        divergence(chunked, session, windows)


def test_positions_outside_the_text_are_refused(reference, windows) -> None:
    with pytest.raises(BadInput, match="positions"):
        list(reference.logits(windows[:1], torch.tensor([160])))


def test_no_more_logits_are_computed_than_are_compared(model, reference, windows) -> None:
    rows: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[1]))
    with opened(model, "w16a16-k8v8+pc64") as session:
        divergence(reference, session, windows[:1], rows=8)
    hook.remove()
    assert rows == [8, 8, 8, 8, 7, 7]  # chunks of 64, 64 and 32, by both sessions; 7 have a next


def test_a_tail_is_fed_in_short_chunks_and_alone_compared(model, reference, windows) -> None:
    rows: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda _, given, __: rows.append(given[0].shape[1]))
    with opened(model, "w16a16-k8v8") as session:
        found = divergence(reference, session, windows, tail=96)
    hook.remove()
    assert found.positions == 4 * 95
    # both sessions read the body for nothing but its end; the last token has no next one
    assert rows[:6] == [1, 64, 1, 64, 31, 31]


@pytest.mark.parametrize(("tokens", "tail"), [(3, 0), (127, 0), (128, 64), (512, 256), (9000, 256)])
def test_the_tail_of_a_text(tokens: int, tail: int) -> None:
    """A text of a few words is compared whole: half of three tokens would leave no position."""
    assert tail_of(tokens) == tail


def test_a_window_of_recent_tokens_is_behind_every_token_of_a_tail(
    model, reference, windows
) -> None:
    """In one chunk of a prompt the window is the chunk's own end: earlier tokens see none of it."""

    def spared(tail: int) -> float:
        kl = []
        for name in ("w16a16-k2v2", "w16a16-k2v2+res128"):
            with opened(model, name) as session:
                kl.append(divergence(reference, session, windows, tail=tail).kl.value)
        return kl[1] / kl[0]

    assert spared(32) < 0.8 * spared(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step", [0.0, 1e-7, 1e-5, 1e-3, 1.0, 30.0])
def test_kl_is_never_negative(step: float, dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, 70, 501, generator=drawn)
    other = logits + step * torch.randn(logits.shape, generator=drawn)
    targets = torch.zeros(2, 70, dtype=torch.long)
    kl, _, nll, _ = compare(logits.to(dtype), other.to(dtype), targets)
    assert kl.dtype == torch.float64
    assert kl.min() >= 0
    assert torch.isfinite(kl).all()
    assert (nll >= 0).all()
    if step == 0:
        assert kl.max() == 0
    elif step > 1e-3:
        assert kl.min() > 0


@pytest.mark.parametrize("off", [1e-3, 1e-5, 1e-7])
def test_kl_of_nearly_equal_distributions_keeps_its_digits(off: float) -> None:
    # p = (1/2 + e, 1/2 - e), q = (1/2, 1/2): KL = 2 e^2 + 4/3 e^4 + O(e^6), which a sum of
    # p log p/q, whose terms are e and -e, loses to rounding at 1e-16
    p = torch.tensor([0.5 + off, 0.5 - off], dtype=torch.float64).log()
    q = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    kl, *_ = compare(p[None, None] + 7.0, q[None, None], torch.tensor([[0]]))
    assert float(kl) == pytest.approx(2 * off**2 + 4 / 3 * off**4, rel=1e-5)


def test_kl_far_apart_neither_overflows_nor_is_cut() -> None:
    # p is one token, q another 2,000 nats away: KL = 2,000 and 0 elsewhere
    p, q = torch.tensor([0.0, -2000.0, -2000.0]), torch.tensor([-2000.0, 0.0, -2000.0])
    kl, *_ = compare(p[None, None], q[None, None], torch.tensor([[0]]))
    assert float(kl) == pytest.approx(2000.0)
    never = torch.tensor([-torch.inf, 0.0, 0.0])
    kl, *_ = compare(p[None, None], never[None, None], torch.tensor([[1]]))
    assert float(kl) == math.inf  # q excludes the only token there is


def test_logits_that_are_no_numbers_are_not_hidden() -> None:
    broken = torch.tensor([[[0.0, torch.nan, 1.0]]])
    kl, *_ = compare(torch.zeros(1, 1, 3), broken, torch.tensor([[0]]))
    assert math.isnan(float(kl))


def _kept(excess: float) -> float:
    one, of = Score(1.0, 0.0, (1.0,)), Score(excess, 0.0, (excess,))
    return Divergence(1, one, one, of, one, of).kept


def test_what_is_kept_is_finite_however_far_the_text_is_lost() -> None:
    assert _kept(math.log(2)) == pytest.approx(0.5)
    assert _kept(1e4) == 0.0
    assert math.isfinite(_kept(-1e4))


def test_a_tokenizer_that_makes_no_tokens_is_named(tokenizer) -> None:
    def empty(text: str, **kwargs: object) -> dict[str, list[int]]:
        return {"input_ids": []}

    empty.eos_token_id = None  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="makes no tokens"):
        text_windows(empty, TEXT, 100)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(8,), (0, 8), (2, 2)])
def test_windows_in_which_nothing_is_predicted_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="no text to compare"):
        check_windows(torch.zeros(shape))
    check_windows(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("positions", "tokens", "tail", "otherwise"),
    [
        (3 * 255, 4096, 256, False),
        (3 * 255, 4096, None, False),  # from before it was written down, by the same measure
        (3 * 2047, 4096, None, True),  # 256 positions of each of eight chunks
        (3 * 255, 4096, 128, True),
        (99, 100, 0, False),
        (99, 100, None, False),
    ],
)
def test_rows_of_other_positions_are_told_apart(
    positions: int, tokens: int, tail: int | None, otherwise: bool
) -> None:
    assert compares_otherwise(positions, tokens, tail) is otherwise
