"""One configuration on the real runtime, and the calls that a measurement is made of.

The model is loaded once for each weight format; a configuration is a session on it, beside a
session of the unquantized model that divergences are measured from.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ...planner.errors import BadInput
from ...planner.formats.configuration import Configuration
from ...planner.models.spec import ModelSpec, RecurrentState
from ...planner.workload import Workload
from ...runtime import Session
from ...runtime.cache.affine import write_maps
from ...runtime.cache.kv_cache import check_cache
from ...runtime.failures import is_out_of_memory
from ...runtime.load_weights import before_weights
from ...runtime.session_results import held_bytes
from ..execution.loaded_model import OpenModel, open_model
from ..execution.memory_cap import numbered
from .affine_maps import TOKENS as AFFINE_TOKENS
from .affine_maps import check_learnable, learn_maps
from .layer_probe import TOKENS, probe_layers
from .layer_sensitivity import Sensitivity
from .prompts import Prompts, PromptTexts
from .read_attention import LEAST, read_attention
from .reference_logits import ReferenceLogits
from .runtime_trial import SPEED_TOKENS, RuntimeTrial

FULL = Configuration()
BATCH = 8
"""Items generated together, where memory allows."""


class Bench:
    """A model to run configurations of; its weights are read when they are first needed.

    Raises BadInput for checkpoints that are quantized already, and for what config, tokenizer and
    material tell.
    """

    def __init__(
        self,
        source: str,
        spec: ModelSpec,
        material: PromptTexts,
        *,
        device: str,
        offline: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        if spec.quantization is not None:
            raise BadInput(
                f"{spec.name} is quantized already, so there is no unquantized score to compare "
                "with",
                "calibrate the 16-bit checkpoint it was made from",
            )
        self.spec, self.device = spec, device
        self._source, self._offline, self._trusted = source, offline, trust_remote_code
        self._batch = BATCH
        self._models: dict[int, OpenModel] = {}
        self._open = ExitStack()
        self.probe_tokens = TOKENS // 2
        """Tokens of the one window that the layers are probed on, on a CPU."""
        self._reference: tuple[int, ReferenceLogits] | None = None
        ahead = before_weights(
            source, 16, numbered(device),
            dtype=None if self._dtype is None else getattr(torch, self._dtype),
            offline=offline, trust_remote_code=trust_remote_code,
        )  # fmt: skip
        longest = Workload(max(material.contexts), 0)
        check_cache(ahead.spec, FULL, longest, ahead.device)
        self._tokenizer = ahead.tokenizer
        self.prompts = Prompts(spec.name, ahead.tokenizer, material)

    @contextmanager
    def open(self, config: Configuration, context: int) -> Iterator[RuntimeTrial]:
        """A trial of `config` with prompts of `context` tokens."""
        reference = self._reference_at(context)
        base = self._model(config.weight_bits)
        before = _allocated(base.device) - held_bytes(base.model)
        with _session(base, config, self._room(context)) as session:
            trial = RuntimeTrial(self, reference, session, context, before)
            try:
                yield trial
            finally:
                trial.close()
                gc.collect()
                if session.device.type == "cuda":
                    torch.cuda.empty_cache()

    @property
    def _dtype(self) -> str | None:
        """On a CPU float32: without hardware for them 16-bit products take several times as
        long."""
        return "float32" if self.device == "cpu" else None

    def check(self, named: bool, affine: bool) -> None:
        """Raise BadInput where what was asked cannot be measured: a task, if tasks were `named`,
        that fits no context; a text that is too short; maps of what takes none."""
        self.prompts.check(named)
        if affine:
            check_learnable(self.spec, self.prompts.long_text(AFFINE_TOKENS))

    def load(self) -> None:
        """Read the 16-bit weights."""
        self._model(16)

    def fitting_tasks(self, context: int) -> list[str]:
        return self.prompts.fitting_tasks(context)

    @property
    def at_once(self) -> int:
        """Prompts generated together."""
        return min(self._batch, self.prompts.material.items)

    def probe(self) -> tuple[Sensitivity, int]:
        """How sensitive each layer is, and on windows of how many tokens it was tried."""
        windows = self.prompts.windows(min(TOKENS, max(self.prompts.material.contexts)))
        text = windows[0]
        if self.device == "cpu":  # a quarter of the text: seconds, where it would be a minute
            windows = windows[:1, : self.probe_tokens]
            text = text if self.probe_tokens >= LEAST else text[: self.probe_tokens]
        attention = read_attention(self._model(16), text)
        probed = probe_layers(self._model(16), windows)
        return replace(probed, attention=attention), int(windows.shape[1])

    def learn_affine(self, folder: Path) -> str:
        """Put affine maps of keys and values beside the calibration in `folder`, and say so."""
        begun = time.monotonic()
        text = self.prompts.long_text(AFFINE_TOKENS)
        maps = learn_maps(self._model(16), text)
        write_maps(folder, maps)
        return (
            f"affine maps of {len(maps) // 2} layers, from {len(text):,} tokens in "
            f"{time.monotonic() - begun:.1f} s: configurations with +affine run now"
        )

    def batched(self, config: Configuration, context: int) -> Session:
        """A session of as many prompts at once as memory allows, up to BATCH, for the caller to
        close."""
        base, room = self._model(config.weight_bits), self._room(context)
        while True:
            try:
                # states would read the padding of shorter prompts
                states = any(isinstance(m, RecurrentState) for m, _ in base.spec.mixer_counts)
                return _session(base, config, room, 1 if states else self.at_once)
            except Exception as error:
                if not is_out_of_memory(error) or not self.fewer_at_once():
                    raise

    def fewer_at_once(self) -> bool:
        """Halve the batch after memory ran out; False where it is 1 already."""
        if self._batch == 1:
            return False
        self._batch //= 2
        if self.device == "cuda":
            torch.cuda.empty_cache()
        return True

    def close(self) -> None:
        """Free everything, in the reverse order of loading."""
        if self._reference is not None:
            self._reference[1].session.close()
            self._reference = None
        self._models.clear()
        self._open.close()

    def _model(self, bits: int) -> OpenModel:
        """The model with its weights at `bits`."""
        if bits not in self._models:
            self._models[bits] = self._open.enter_context(
                open_model(
                    self._source,
                    bits,
                    device=self.device,
                    dtype=self._dtype,
                    tokenizer=self._tokenizer,
                    offline=self._offline,
                    trust_remote_code=self._trusted,
                )
            )
        return self._models[bits]

    def _reference_at(self, context: int) -> ReferenceLogits:
        if self._reference is None or self._reference[0] != context:
            if self._reference is not None:
                self._reference[1].session.close()
                self._reference = None
            session = _session(self._model(16), FULL, self._room(context))
            self._reference = context, ReferenceLogits(session)
        return self._reference[1]

    def _room(self, context: int) -> int:
        """Tokens of the cache: the prompt and the longest answer."""
        return context + max(SPEED_TOKENS, self.prompts.longest_answer(context))


def _session(base: OpenModel, config: Configuration, room: int, batch: int = 1) -> Session:
    return Session(
        base.model, base.spec, config, tokens=room, batch=batch, tokenizer=base.tokenizer
    )


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
