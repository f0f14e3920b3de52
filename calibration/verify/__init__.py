"""`kvpareto verify`: a recommendation run for real under its budget, and a receipt of how it went.

by_engine     all that can be typed, to whichever engine runs it
verify        the order of it all, for our runtime and transformers
cases         what was promised: a plan's file; typed_cases a configuration, budgets and contexts
verifier      one case run under its cap: memory, seconds, scores
score_tasks   tasks scored under the configuration and, on the same items, without quantization
judge         each number beside its prediction: inside its interval, better or worse
to_records    the run as rows of the model's calibration
on_cpu        a promise as a CPU can keep it
replan        what to run instead, where the prediction was wrong
receipt       the document of it
"""

DOOR = (
    "judge",
    "on_cpu",
    "score_tasks",
    "shared_options",
)
"""Modules that other rooms may import."""
