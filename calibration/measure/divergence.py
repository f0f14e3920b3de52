"""How far a configuration's next-token distributions are from the unquantized model's.

The cheapest measurement there is, and a dense one: every token of a text is an observation, where
a task gives one number an item. Two sessions read the same text in step, chunk by chunk, and only
what both predict at some positions of the current chunk is held at a time:

    KL = mean over positions of sum_v p(v) (log p(v) - log q(v)),   p unquantized, q quantized

exactly, over the whole vocabulary, in nats; top-1 agreement is how often both would choose the
same token; perplexity is exp of the mean -log q(next token).

The sum over v cancels where q is near p: in float32 what is left can have either sign. It is
summed as terms none of which is negative (`_kl`), in float64.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ...planner.errors import BadInput
from ...runtime import Session
from ..tasks.scores import Score
from .reference_logits import ReferenceLogits

STEP = 64
"""Tokens of a tail's chunk: a query of it sees the last 64 to 128 tokens in a window of 128."""
TAIL = 256
"""Tokens of a text's end that say what decoding reads there, or half of a shorter text."""
BLOCK = 64
"""Consecutive positions whose mean is one observation of the error: neighbours are correlated."""
ROWS = 32
"""Positions whose distributions are held in float64 at a time."""
NEAR = 1.0
"""|log q - log p| below which a term of the KL is computed by expm1, without cancellation."""
LARGEST_EXPONENT = 700.0
"""Below the logarithm of the largest float64: what is exponentiated ends here."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Means over positions; `per_item` of each is the means of blocks of positions.

    `nll` is the mean -log q of the text's own next tokens, in nats; `excess` is nll minus the
    reference's, with the error of the paired difference.
    """

    positions: int
    kl: Score
    top1: Score
    nll: Score
    reference_nll: Score
    excess: Score

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll.value, LARGEST_EXPONENT))

    @property
    def kept(self) -> float:
        """exp(-excess): the share of a token's probability that is kept. Finite; 0 where all of
        it is gone."""
        return math.exp(min(-self.excess.value, LARGEST_EXPONENT))

    @property
    def perplexity_stderr(self) -> float:
        """By the delta method: d exp(x) = exp(x) dx."""
        return self.perplexity * self.nll.stderr

    @property
    def reference_perplexity(self) -> float:
        return math.exp(min(self.reference_nll.value, LARGEST_EXPONENT))


def divergence(
    reference: Session | ReferenceLogits,
    quantized: Session,
    windows: Tensor,
    *,
    rows: int = 256,
    tail: int = 0,
) -> Divergence:
    """Compare two sessions of one model over token `windows` [N, T] (see `text_windows`).

    Each window starts from an empty cache and is fed in the quantized session's chunks. At most
    `rows` positions of a chunk are compared, evenly spaced, which bounds what is held to
    2 x batch x rows x vocabulary logits. With a `tail` only that many tokens at the end are, and
    they are fed STEP at a time: a prompt's chunk has its last tokens alone in a window of recent
    ones, so that few of its positions see what decoding sees, a window behind each token. A
    reference whose logits are kept (reference_logits.py) reads a window once for all sessions that
    it is compared with. Raises BadInput for sessions that cannot keep step.
    """
    if isinstance(reference, Session):
        reference = ReferenceLogits(reference, most=0)
    batch = _check(reference.session, quantized)
    check_windows(windows)
    parts = []
    body = windows.shape[1] - tail
    chunks = quantized.chunks(body) + [min(STEP, tail - at) for at in range(0, tail, STEP)]
    places = torch.arange(body, windows.shape[1] - 1) if tail else _spread(chunks, rows)
    for start in range(0, len(windows), batch):
        # a group that is not full is filled with its last window, whose copies are left out
        group = windows[[min(start + i, len(windows) - 1) for i in range(batch)]]
        real = min(batch, len(windows) - start)
        parts.append(_compare_group(reference, quantized, group, places, chunks)[:, :real])
    values = torch.cat([part.flatten(1) for part in parts], dim=1).numpy()  # [4, positions]
    kl, top1, nll, reference_nll = values
    return Divergence(
        positions=kl.size,
        kl=_block_score(kl),
        top1=_block_score(top1),
        nll=_block_score(nll),
        reference_nll=_block_score(reference_nll),
        excess=_block_score(nll - reference_nll),
    )


def tail_of(tokens: int) -> int:
    """The tail of a text of so many tokens; 0, for all of it, where that has not two STEPs."""
    return min(TAIL, tokens // 2) if tokens >= 2 * STEP else 0


def compares_otherwise(positions: float, tokens: float, tail: float | None) -> bool:
    """Whether `positions` of texts of so many tokens are others than those of today's `tail_of`.
    Rows from before it was written down have no tail: then their number tells."""
    now = tail_of(int(tokens))
    if tail is not None:
        return tail != now
    return positions % ((now or int(tokens)) - 1) != 0


def check_windows(windows: Tensor) -> None:
    """Raise BadInput for windows [N, T] in which nothing is predicted."""
    if windows.dim() != 2 or min(windows.shape) < 1 or windows.shape[1] < 3:
        raise BadInput(
            f"no text to compare: windows of shape {tuple(windows.shape)}",
            "give a text of at least a few tokens",
        )


def text_windows(
    tokenizer: PreTrainedTokenizerBase, text: str, length: int, count: int | None = None
) -> Tensor:
    """Cut `text` into windows [N, length] of tokens, at most `count`; one shorter window where
    the text is shorter. Each begins with the tokenizer's first special token, if it adds one.

    Raises BadInput for a text without tokens or a length below 8.
    """
    if length < 8:
        raise BadInput(f"windows of {length} tokens are too short", "use 8 tokens or more")
    # special tokens a tokenizer puts before a text; those it puts after belong to no window
    lead = [token for token in tokenizer("")["input_ids"] if token != tokenizer.eos_token_id]
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if text.strip() and not ids:
        raise BadInput(
            f"this tokenizer makes no tokens of a text of {len(text):,} characters",
            "its tokenizer.json is damaged, or not this model's",
        )
    step = min(length - len(lead), len(ids))
    if step < 2:
        raise BadInput("the text has fewer than 2 tokens", "give a longer text")
    rows = [lead + ids[at : at + step] for at in range(0, len(ids) - step + 1, step)]
    return torch.tensor(rows[:count])


def _check(reference: Session, quantized: Session) -> int:
    """The batch of both. Raises BadInput where they cannot run in step."""
    batches = [s.cache.clock.starts.shape[0] for s in (reference, quantized)]
    sizes = [s.model.config.get_text_config().vocab_size for s in (reference, quantized)]
    if len(set(batches)) > 1 or len(set(sizes)) > 1:
        raise BadInput(
            f"sessions of batch {batches[0]} and {batches[1]} over vocabularies of {sizes[0]} "
            f"and {sizes[1]} cannot be compared",
            "load the same model twice with the same batch",
        )
    largest = reference.config.largest_chunk
    if largest is not None and largest != quantized.config.largest_chunk:
        raise BadInput(
            f"the reference prefills in chunks of {largest}, which {quantized.config} does not",
            "give both the same +pc, or the reference none",
        )
    return batches[0]


def _spread(chunks: list[int], rows: int) -> Tensor:
    """At most `rows` positions of each chunk, evenly spaced, without the text's last position."""
    places, done = [], 0
    for size in chunks:
        count = min(size, rows)
        places.append(done + torch.linspace(0, size - 1, count).round().long())
        done += size
    spread = torch.cat(places)
    return spread[spread < done - 1]


def _compare_group(
    reference: ReferenceLogits, quantized: Session, group: Tensor, places: Tensor, chunks: list[int]
) -> Tensor:
    """KL, agreement, -log q and -log p of one batch of windows: float64 [4, B, P] on the host."""
    parts, done = [], 0
    targets = group[:, places + 1]
    pairs = zip(
        reference.read(group, places, chunks),
        quantized.logits(group, places, chunks),
        strict=True,
    )
    for ours, theirs in pairs:
        count = theirs.shape[1]
        next_tokens = targets[:, done : done + count].to(theirs.device)
        parts.append(compare(ours.to(theirs.device), theirs, next_tokens).cpu())
        done += count
    return torch.cat(parts, dim=2)


@torch.inference_mode()
def compare(reference: Tensor, quantized: Tensor, targets: Tensor) -> Tensor:
    """KL(p || q), whether both choose the same token, -log q(target), -log p(target).

    Logits [B, n, V] of both and the true next tokens [B, n]; float64 [4, B, n]. KL is never
    negative, and 0 for equal logits.
    """
    parts = []
    rows = max(1, ROWS // reference.shape[0])
    pieces = (part.split(rows, dim=1) for part in (reference, quantized, targets))
    for ours, theirs, target in zip(*pieces, strict=True):
        log_p, log_q = ours.double().log_softmax(-1), theirs.double().log_softmax(-1)
        same = (ours.argmax(-1) == theirs.argmax(-1)).double()
        nll = [-log.gather(-1, target[..., None])[..., 0] for log in (log_q, log_p)]
        parts.append(torch.stack([_kl(log_p, log_q), same, *nll]))
    return torch.cat(parts, dim=2)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) [...] of normalized float64 log probabilities [..., V].

    p and q each sum to 1, so sum p (log p - log q) = sum p (e^d - 1 - d) with d = log q - log p,
    and e^d - 1 - d is never negative. Where d is small, expm1 keeps its d^2 / 2 to a relative
    rounding of about 2^-52 / |d|; below |d| = 2^-52 a term is rounding alone, at most p 2^-52, and
    may come out as 0. Elsewhere p e^d is q itself, which cannot overflow. A token that p excludes
    (log p = -inf) adds q; one that q alone excludes makes the sum infinite.
    """
    p, d = log_p.exp(), log_q - log_p
    near = p * (torch.expm1(d) - d)
    far = log_q.exp() - p - p * d
    terms = torch.where(d.abs() < NEAR, near, far)
    return terms.where(~log_p.isneginf(), log_q.exp()).clamp_min(0).sum(-1)


def _block_score(values: np.ndarray) -> Score:
    """The mean over positions, with the error that the means of blocks show (batch means)."""
    blocks = np.array_split(values, max(2, values.size // BLOCK))
    means = Score.of([float(block.mean()) for block in blocks])
    return Score(float(values.mean()), means.stderr, means.per_item)
