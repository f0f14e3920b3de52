"""A process that measures nothing and writes rows as fast as it can: what a test kills.

`python record_writer.py FOLDER COUNT` writes the rows that are not there yet, and says the number
of each on stdout once it is on the disk.
"""

import sys
from pathlib import Path

from kvpareto.calibration.records.record_file import Environment, Record, RecordFile

ENVIRONMENT = Environment(python="3.11", kvpareto="0.1.0", torch="2.13.0", transformers="5.23.0")


def row(number: int, **changes: object) -> Record:
    """Row `number` of a made-up calibration."""
    values: dict[str, object] = {
        "model": "made-up",
        "fingerprint": "0" * 16,
        "config": "w16a16-k4v4",
        "task": "needle",
        "kind": "retrieval",
        "context": 1024,
        "seed": number,
        "outcome": "ok",
        "items": (1.0, 0.0, 0.5) * 20,
        "score": 0.5,
        "stderr": 0.05,
        "environment": ENVIRONMENT,
        "started": "2026-11-23T10:00:00+00:00",
        "ended": "2026-11-23T10:00:01+00:00",
    }
    return Record.model_validate(values | changes)


def main(folder: Path, count: int) -> None:
    with RecordFile(folder) as file:
        done = file.done
        for number in range(count):
            if row(number).key not in done:
                file.append(row(number))
                print(number, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
