"""Tasks of the recall model with its cache in vLLM's pages, without vLLM; no GPU is needed.

    python benchmarks/vllm/page_retention.py --model recall-outliers --context 2k --items 12
    python benchmarks/vllm/page_retention.py --context 4k --items 32 --served answers.json

Every key and value goes through the reference of the page format (write, read, turn back), as
vLLM's kernels and the plugin's see them: prompts too. Beside it, on the same items: 16 bits, and
this project's runtime with the nearest configuration of its own grammar. Prints each task's score
with its standard error, and how many answers are the same, token by token. `--served` names a file
of served_tasks.py: the answers of a server to the same items are then held to these.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from kvpareto.calibration.vllm.exam import ServedExam
from kvpareto.calibration.vllm.start import StartReading
from kvpareto.planner.units import parse_tokens
from kvpareto.planner.workload import Workload
from kvpareto.runtime import load
from kvpareto.runtime.kernels.paged.page_format import PageFormat, pack, rotate_back, unpack

MODELS = Path(__file__).parents[2] / "profiles/recall"
OURS = {"int4_per_token_head": "w16a16-k4v4-g64+rot", "int8_per_token_head": "w16a16-k8v8-g64"}


class PagedCache(DynamicCache):
    """A cache whose keys and values have been in pages of `form`."""

    def __init__(self, form: PageFormat) -> None:
        super().__init__()
        self._form = form

    def update(self, key: Tensor, value: Tensor, *rest: Any, **more: Any) -> tuple[Tensor, Tensor]:
        return super().update(self._paged(key), self._paged(value), *rest, **more)

    def _paged(self, x: Tensor) -> Tensor:
        held = unpack(pack(x, self._form), self._form)
        return (rotate_back(held) if self._form.rotated else held).to(x.dtype)


def main() -> None:
    """Score 16 bits, both page formats, and the runtime's own formats."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="recall", help="Of profiles/recall.")
    parser.add_argument("--context", default="2k")
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--tasks", default="needle-multikey,variables,arithmetic")
    parser.add_argument("--four", action="store_true", help="Caches of 4 bits alone.")
    parser.add_argument("--served", type=Path, help="Answers that served_tasks.py wrote.")
    asked = parser.parse_args()
    context, folder = parse_tokens(asked.context), str(MODELS / asked.model)
    exam = ServedExam(folder, Workload(context, 64, 1), asked.tasks, asked.items, 1, print, True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).to(device).eval()
    end = model.config.eos_token_id
    answers = {"16 bits": [_greedy(model, DynamicCache(), *one) for one in _asked(exam)]}
    for name, config in list(OURS.items())[: 1 if asked.four else None]:
        form = PageFormat.of(name, model.config.head_dim)
        assert form is not None
        answers[name] = [_greedy(model, PagedCache(form), *one) for one in _asked(exam)]
        with load(folder, config, context=context + 128) as session:
            asks = [(torch.tensor([ids], device=device), n) for ids, n in _asked(exam)]
            said = [session.generate(ids, n).tokens[0] for ids, n in asks]
        answers[config] = [[token for token in one if token != end] for one in said]
    served = json.loads(asked.served.read_text(encoding="utf-8")) if asked.served else {}
    tasks = len(asked.tasks.split(","))
    for name, given in served.items():
        each = len(given) // tasks  # a task's first items are the same however many there are
        kept = [one for i, one in enumerate(given) if i % each < asked.items]
        answers[f"served, {name}"] = [one[: one.index(end)] if end in one else one for one in kept]
    for name, given in answers.items():
        scores = exam.scores(StartReading(True, answers=tuple(map(tuple, given))))
        each = ", ".join(f"{t} {s.value:.3f} +- {s.stderr:.3f}" for t, s in scores.items())
        print(f"{name}: {each}", flush=True)
        for other, theirs in answers.items():
            same = sum(a == b for a, b in zip(given, theirs, strict=True))
            if other != name:
                print(f"    {same} of {len(given)} answers as {other}", flush=True)


def _asked(exam: ServedExam) -> list[tuple[list[int], int]]:
    return list(zip(map(list, exam.prompts), exam.answer, strict=True))


@torch.inference_mode()
def _greedy(model: Any, cache: DynamicCache, ids: list[int], most: int) -> list[int]:
    """Tokens until the model's end, `most` of them at most."""
    given, said = torch.tensor([ids], device=model.device), list[int]()
    while len(said) < most:
        logits = model(given, past_key_values=cache, logits_to_keep=1).logits
        token = int(logits[0, -1].argmax())
        if token == model.config.eos_token_id:
            break
        said.append(token)
        given = torch.tensor([[token]], device=model.device)
    return said


if __name__ == "__main__":
    main()
