"""A session as the evaluation harness sees a model: log-likelihoods and generation.

Every token it scores has gone through the packed cache in the configuration's prefill chunks, as
it would in use. Prompts too long for the session are cut on the left, as the harness's own
Hugging Face model does. Imported by lm_eval.py alone: it needs `lm_eval`.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from torch import Tensor

from ...planner.errors import BadInput
from ...runtime import Sampling, Session

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 256  # the harness's own default for tasks that name none
ROWS = 64  # positions whose distributions are held in float32 at a time
LOOK_EVERY = 8  # decoded tokens between two looks for a stop string


class SessionLM(TemplateLM):
    """The harness's model over a session; batches are the session's. Raises BadInput without a
    tokenizer."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        if session.tokenizer is None:
            raise BadInput("this model was loaded without a tokenizer", "pass one to load()")
        self.session = session
        self.tokenizer: Any = session.tokenizer
        self.batch = session.cache.clock.starts.shape[0]

    @property
    def eot_token_id(self) -> int:
        token = self.tokenizer.eos_token_id
        return min(self.session.stops, default=0) if token is None else token

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context."""
        token = self.tokenizer.bos_token_id
        return self.eot_token_id if token is None else token

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    @property
    def max_length(self) -> int:
        return self.session.cache.capacity

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        if add_special_tokens is None:  # a chat template has written the first token already
            bos = self.tokenizer.bos_token
            add_special_tokens = not (bos and string.startswith(bos))
        return self.tokenizer(string, add_special_tokens=add_special_tokens, verbose=False)[
            "input_ids"
        ]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        """(log p of the continuation, whether greedy decoding would give it) for each request."""
        results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        # of like length together, to pad little
        order = sorted(range(len(requests)), key=lambda i: -sum(map(len, requests[i][1:])))
        for places in self._groups(order):
            pairs = [(requests[i][1], requests[i][2]) for i in places]
            for i, result in zip(places, self._score(pairs), strict=False):
                results[i] = result
        return results

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """log p of whole texts, in windows of the session's length."""
        sums = []
        for request in requests:
            (text,) = request.args
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs = [utils.make_disjoint_window(window) for window in windows]
            scores = self._loglikelihood_tokens([(("", text), *pair) for pair in pairs])
            sums.append(sum(score for score, _ in scores))
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        answers = [""] * len(requests)
        alike = defaultdict(list)  # requests of one batch share how they generate
        for i, request in enumerate(requests):
            alike[json.dumps(request.args[1], sort_keys=True)].append(i)
        for settings, places in alike.items():
            places.sort(key=lambda i: -len(requests[i].args[0]))
            for group in self._groups(places):
                prompts = [requests[i].args[0] for i in group]
                texts = self._generate(prompts, **json.loads(settings))
                for i, text in zip(group, texts, strict=False):
                    answers[i] = text
        return answers

    def _groups(self, places: Sequence[int]) -> list[list[int]]:
        return [list(places[i : i + self.batch]) for i in range(0, len(places), self.batch)]

    def _filled(self, rows: list[Any]) -> list[Any]:
        """A batch of the session's size: the last row again where there are fewer."""
        return [*rows, *[rows[-1]] * (self.batch - len(rows))]

    def _score(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        texts = self._filled(
            [(context + answer)[-self.max_length - 1 :] for context, answer in pairs]
        )
        counts = self._filled([len(answer) for _, answer in pairs])
        counts = [min(n, len(text) - 1) for n, text in zip(counts, texts, strict=True)]
        rows = [text[:-1] for text in texts]  # the last token is predicted, never fed
        longest, most = max(map(len, rows)), max(counts)
        targets = torch.tensor(
            [[0] * (most - n) + text[-n:] for n, text in zip(counts, texts, strict=True)]
        )
        parts, done = [], 0
        for logits in self.session.logits(rows, torch.arange(longest - most, longest)):
            now = targets[:, done : done + logits.shape[1]]
            done += logits.shape[1]
            parts.append(_scored(logits, now.to(logits.device)).cpu())
        log_p, greedy = torch.cat(parts, dim=2)
        return [
            (float(log_p[row, most - n :].sum()), bool(greedy[row, most - n :].all()))
            for row, n in enumerate(counts[: len(pairs)])
        ]

    def _generate(
        self,
        prompts: list[str],
        until: str | list[str] | None = None,
        max_gen_toks: int = MAX_NEW_TOKENS,
        do_sample: bool = False,
        temperature: float = 0.0,
        top_p: float = 1.0,
        **others: Any,
    ) -> list[str]:
        if others:
            logger.warning("generation settings without effect here: %s", ", ".join(others))
        stops = [until] if isinstance(until, str) else list(until or [])
        room = self.max_length - max_gen_toks
        if room < 1:
            raise BadInput(
                f"{max_gen_toks} generated tokens leave no room in a session of {self.max_length}",
                "load with a longer context or output",
            )
        rows = self._filled([self.tok_encode(prompt)[-room:] for prompt in prompts])
        sampling = Sampling(temperature if do_sample else 0.0, top_p=top_p)
        columns: list[list[int]] = []
        for column in self.session.steps(rows, max_gen_toks, sampling):
            columns.append(column)
            if stops and len(columns) % LOOK_EVERY == 0:
                texts = self._texts(columns)
                if all(any(stop in text for stop in stops) for text in texts):
                    break
        return [_cut(text, stops) for text in self._texts(columns)[: len(prompts)]]

    def _texts(self, columns: list[list[int]]) -> list[str]:
        rows = [list(row) for row in zip(*columns, strict=True)]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)


@torch.inference_mode()
def _scored(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of targets [B, n] under logits [B, n, V], and whether each is the likeliest: [2, B, n]
    in float64."""
    parts = []
    for part, target in zip(logits.split(ROWS, dim=1), targets.split(ROWS, dim=1), strict=True):
        log_p = part.float().log_softmax(-1).gather(-1, target[..., None])[..., 0]
        parts.append(torch.stack([log_p, (part.argmax(-1) == target).float()]).double())
    return torch.cat(parts, dim=2)


def _cut(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the stop strings."""
    return text[: min([text.find(stop) for stop in stops if stop and stop in text], default=None)]
