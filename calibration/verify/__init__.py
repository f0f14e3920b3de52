"""`kvpareto verify`: a recommendation run for real under its budget, and a receipt of how it went.

question    what was promised: a plan's file, or a configuration and a budget
retention   tasks scored under the configuration and, on the same items, without quantization
terms       each number beside its prediction: inside its interval, better or worse
rows        the run as rows of the model's calibration
corrected   what to run instead, where the prediction was wrong
verify      the order of it all
"""

DOOR = (
    "judge",
    "score_tasks",
    "shared_options",
    "verify",
)
"""Modules that other rooms may import."""
