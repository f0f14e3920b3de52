"""Pretrained models, measured: how far each configuration is from 16 bits, and what tasks lose.

    python -m kvpareto.calibration.real_models unpack   a GGUF file to a bfloat16 folder
    python -m kvpareto.calibration.real_models prepare  texts and tasks as a model's tokens
    python -m kvpareto.calibration.real_models measure  every point of the design, on GPUs
    python -m kvpareto.calibration.real_models table    docs/real_*.md from the rows

The first two need no GPU and leave a folder for each model; `measure` reads only those.
Divergence is measured for every configuration (forced.py), tasks for those that stand for a
method (tasks.py, grade_school.py). docs/real_models.md says what was found.
"""

DOOR = ("rows",)
"""Modules that other rooms may import."""
