"""Random shapes and settings that no rule was made from, run by llama.cpp and held to the plan.

    python benchmarks/llama_cpp/held_out.py SEED COUNT

Prints what is off: caches beyond the printed digit, compute buffers beyond it and in percent.
Recurrent models are drawn by hybrid_shapes.py, others as shapes.json has them.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from architectures import write
from hybrid_shapes import FAMILIES

from kvpareto import profiles
from kvpareto.calibration.llama_cpp.random_models import write_model
from kvpareto.calibration.llama_cpp.start import run_library
from kvpareto.planner.engines.llama_cpp.cache_bytes import cache_bytes
from kvpareto.planner.engines.llama_cpp.model_graph import compute_bytes
from kvpareto.planner.engines.llama_cpp.run_settings import RunSettings
from kvpareto.planner.errors import BadInput
from kvpareto.planner.load_model import load_model
from kvpareto.planner.models.read_config import read_model
from kvpareto.planner.models.spec import ModelSpec

MIB = 2**20
TYPES = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
SHAPES: dict[str, dict[str, Any]] = json.loads(profiles.read("llama_cpp/shapes.json"))


def shape(draw: random.Random) -> dict[str, Any]:
    """A shape of profiles/llama_cpp/shapes.json with every size drawn anew."""
    config = dict(draw.choice(list(SHAPES.values())))
    head = draw.choice((32, 64, 96, 128, 256))
    config |= {
        "hidden_size": 64 * draw.randint(3, 14),
        "intermediate_size": 32 * draw.randint(8, 120),
        "vocab_size": draw.randint(400, 20000),
        "head_dim": head,
    }
    if "layer_types" not in config:
        config["num_hidden_layers"] = draw.randint(2, 9)
    kv_heads = draw.choice((1, 2, 3, 4))
    config["num_key_value_heads"] = kv_heads
    config["num_attention_heads"] = kv_heads * draw.choice((1, 2, 4, 5))
    if config["model_type"] in ("llama", "mixtral", "qwen2", "lfm2", "smollm3"):
        config["hidden_size"] = head * config["num_attention_heads"]
    if config["model_type"] == "lfm2":  # its width as written, not as a config would adjust it
        config |= {"block_auto_adjust_ff_dim": False, "block_ff_dim": config["intermediate_size"]}
    if "kv_lora_rank" in config:
        config |= {
            "num_key_value_heads": config["num_attention_heads"],
            "kv_lora_rank": 64 * draw.randint(2, 6),
            "q_lora_rank": 32 * draw.randint(2, 8),
            "qk_nope_head_dim": 32 * draw.randint(1, 4),
            "v_head_dim": 32 * draw.randint(1, 4),
        }
        config.pop("head_dim")
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if key in config:
            config[key] = draw.choice((4, 8, 12, 20))
            config["num_experts_per_tok"] = draw.randint(1, 4)
    if "moe_intermediate_size" in config:
        config["moe_intermediate_size"] = 32 * draw.randint(2, 20)
    if config.get("sliding_window"):
        config["sliding_window"] = draw.choice((64, 200, 512, 1000))
    return config


def settings(draw: random.Random, latent: bool) -> RunSettings:
    flash = draw.random() < 0.85
    keys, values = draw.choice(TYPES), draw.choice(TYPES) if flash else "f16"
    return RunSettings(
        context=draw.randint(100, 20000),
        sequences=draw.choice((1, 1, 1, 2, 3)),
        micro_batch=draw.choice((32, 100, 128, 256, 512, 777, 1024)),
        keys=keys if flash else "f16",
        values=(keys if latent else values) if flash else "f16",
        flash=flash,
    )


def model_of(draw: random.Random, path: Path) -> tuple[str, ModelSpec, bool]:
    """A random model's file: its name, what the planner reads of it, and whether it has latents.
    Two of five are recurrent, read from the file itself. Raises BadInput where either side refuses.
    """
    if draw.random() < 0.4:
        row = draw.choice(FAMILIES)(draw)
        write(row, (), path)
        return row["name"], load_model(str(path)), False
    config = shape(draw)
    spec = read_model(config, config["model_type"])
    write_model(config, path)
    return config["model_type"], spec, "kv_lora_rank" in config


def main(seed: int, count: int) -> None:
    """Each run on a line, then how many were exact and how many within 2 %."""
    draw, worst, done, refused = random.Random(seed), 0.0, 0, 0
    exact = near = caches_exact = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        while done < count:
            name = "?"
            try:
                name, spec, latent = model_of(draw, path)
                run = settings(draw, latent)
                found = run_library(path, run, patience=90).breakdown
            except (BadInput, ValueError) as error:
                refused += 1
                print("not run:", name, str(error)[:160], flush=True)
                continue
            done += 1
            caches, compute = cache_bytes(spec, run), compute_bytes(spec, run)
            (printed,) = found.compute.values()
            share = abs(compute / printed - 1)
            same = abs(compute - printed) <= 60
            exact, near = exact + same, near + (same or share <= 0.02)
            worst = max(worst, 0.0 if same else share)
            off = [
                side
                for side, digits in (("keys", 2), ("values", 2), ("states", 1))
                if abs(getattr(caches, side) - getattr(found, side)) > digits * 0.005 * MIB + 1
            ]
            caches_exact += not off
            said = f"{done} {name} {run.keys} {run.values} -c {run.context} -np {run.sequences}"
            said += f" -ub {run.micro_batch} flash {run.flash} off: {off} {compute - printed}"
            print(said, f"{share:.4%}", flush=True)
    print(
        f"{done} runs: caches and states exact in {caches_exact}, compute buffers exact in "
        f"{exact}, within 2 % in {near}, {worst:.3%} off at worst; {refused} did not start"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    main(given.seed, given.count)
