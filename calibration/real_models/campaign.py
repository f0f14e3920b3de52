"""Workers on every GPU, started, replaced where one ends early, and ended when time is up."""

import multiprocessing
import os
import shutil
import time
from typing import Any

from .jobs import CampaignSettings
from .worker import work

RESTARTS = 60
"""Workers that ended early, after which something is broken."""


class WorkerCampaign:
    """`workers` processes for each of `gpus` GPUs; 0 GPUs: this process, on the CPU."""

    def __init__(
        self,
        settings: CampaignSettings,
        *,
        gpus: int,
        workers: int,
        seconds: float,
        wait: bool = False,
    ) -> None:
        self.settings, self.gpus, self.workers, self.wait = settings, gpus, workers, wait
        self._until = time.monotonic() + seconds
        self._restarts = 0

    def run(self) -> None:
        self.settings.out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.settings.out / "claims", ignore_errors=True)  # of an earlier run
        if not self.gpus:
            work(self.settings, 0, "cpu", self._left(), self.wait)
            return
        running: dict[int, Any] = {i: self._start(i) for i in range(self.gpus * self.workers)}
        try:
            while running and self._left() > 0:
                time.sleep(0.5)
                for index, process in list(running.items()):
                    if process.is_alive():
                        continue
                    running.pop(index)
                    if process.exitcode and self._restarts < RESTARTS:
                        self._restarts += 1
                        running[index] = self._start(index)
        finally:
            for process in running.values():
                process.kill()
        print(f"{self._restarts} workers were replaced", flush=True)

    def _start(self, index: int) -> Any:
        # a process sees one GPU; the variable is read when CUDA is first used there
        os.environ["CUDA_VISIBLE_DEVICES"] = str(index % self.gpus)
        process = multiprocessing.get_context("spawn").Process(
            target=work,
            args=(self.settings, index, "cuda", self._left(), self.wait),
            daemon=True,
        )
        process.start()
        return process

    def _left(self) -> float:
        return self._until - time.monotonic()
