"""The recall model: a small language model of this project's own that solves the generated tasks.

    python -m kvpareto.calibration.recall_model.train --out DIR --minutes 5 --seed 0

Trained from scratch in minutes on one GPU, shipped in `profiles/recall/`, so that accuracy under
quantization can be measured anywhere, on a CPU too. docs/recall_model.md says what it is and
how it was made.
"""
