"""llama.cpp's own answers by type of cache: profiles/calibrations/llama_cpp.jsonl."""

import json

from kvpareto import profiles
from kvpareto.planner.accuracy.predict import predict, published
from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.load_model import load_model

ENVIRONMENT, *ROWS = [
    json.loads(line) for line in profiles.read("calibrations/llama_cpp.jsonl").splitlines()
]
DIVERGENCE = {(row["model"], row["config"]): row for row in ROWS if row["kind"] == "divergence"}
SMOLLM2, QWEN = "SmolLM2-135M-Instruct", "Qwen2.5-Coder-0.5B-Instruct"


def test_each_row_is_there_once_and_names_a_configuration() -> None:
    keys = [(r["engine"], r["model"], r["config"], r["kind"], r.get("task")) for r in ROWS]
    assert len(keys) == len(set(keys))
    assert ENVIRONMENT["environment"]["xllamacpp"]
    for row in ROWS:
        assert str(Configuration.parse(row["config"])) == row["config"]
        assert row["n"] >= (96 if row["kind"] == "divergence" else 8)


def test_fewer_bits_diverge_more_without_key_biases() -> None:
    kl = [DIVERGENCE[SMOLLM2, f"wQ4_1-k{n}v{n}"]["kl"] for n in ("q8_0", "q5_1", "q4_1", "q4_0")]
    assert kl == sorted(kl)


def test_keys_decide() -> None:
    for model, weights in ((SMOLLM2, "Q4_1"), (QWEN, "Q4_K_M"), ("recall-outliers", "BF16")):
        values, keys = (
            DIVERGENCE[model, f"w{weights}-{pair}"]["kl"] for pair in ("kq8_0vq4_0", "kq4_0vq8_0")
        )
        assert keys > 3 * values


def test_our_rotated_4_bits_are_q4_1() -> None:
    for model, weights in ((SMOLLM2, "Q4_1"), (QWEN, "Q4_K_M"), ("recall-outliers", "BF16")):
        theirs = DIVERGENCE[model, f"w{weights}-kq4_1vq4_1"]
        ours = DIVERGENCE[model, "w16a16-k4v4-g32+rot"]
        error = (theirs["kl_se"] ** 2 + ours["kl_se"] ** 2) ** 0.5
        assert abs(theirs["kl"] - ours["kl"]) < 2 * error


NEEDLE = {
    (row["model"], row["config"]): row["score"] for row in ROWS if row.get("task") == "needle-4"
}


def test_keys_with_biases_lose_needles_below_8_bits_and_values_do_not() -> None:
    scores = {
        pair: NEEDLE[QWEN, f"wQ4_K_M-{pair}"]
        for pair in ("kf16vf16", "kq8_0vq8_0", "kq8_0vq5_1", "kq8_0vq4_0", "kf16vq4_0")
    }
    assert set(scores.values()) == {1.0}
    for pair in ("kq5_1vq5_1", "kq4_0vq4_0", "kiq4_nlviq4_nl", "kq4_0vq8_0"):
        assert NEEDLE[QWEN, f"wQ4_K_M-{pair}"] < 0.75


def test_no_more_is_promised_than_was_measured() -> None:
    """The lower end of what is predicted for Qwen2.5-Coder-0.5B, whose keys have biases, is at most
    what 16 items kept and two of their errors."""
    spec = load_model("Qwen/Qwen2.5-Coder-0.5B-Instruct", offline=True)
    for (model, config), score in NEEDLE.items():
        if model != QWEN:
            continue
        asked = Configuration.parse(config.replace("wQ4_K_M", "wBF16"))
        low = predict(spec, asked, 256, task="retrieval").low
        assert low <= score + 2 * (0.25 / 16) ** 0.5, config
        keys = asked.k_format
        if keys in ("q5_1", "q4_0", "iq4_nl"):
            weakest = predict(spec, asked, 256)  # what a plan judges by
            assert weakest.low < 0.5, config  # nobody is told that it is safe


def test_what_was_measured_is_inside_without_the_models_own_rows() -> None:
    """The published predictor knows the key biases of Qwen2.5-Coder-0.5B and none of its scores."""
    spec = load_model("Qwen/Qwen2.5-Coder-0.5B-Instruct", offline=True)
    for (model, config), score in NEEDLE.items():
        if model != QWEN:
            continue
        asked = Configuration.parse(config.replace("wQ4_K_M", "wBF16"))
        kept = predict(spec, asked, 256, published(), task="retrieval")
        error = 1.645 * (max(score * (1 - score), 1 / 16) / 16) ** 0.5
        assert kept.low - error <= score <= kept.high + error, config
