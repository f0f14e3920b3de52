"""Write planner/models/families/config_defaults.jsonl: what transformers assumes of fields a
config leaves out.

    python benchmarks/family_defaults.py

One line for each generative model type: the default of every field that can change a shape, the
family's spellings of standard names, the model type of each nested section, and which sections
are that type whatever they call themselves. The planner reads these facts without transformers;
tests/planner/models/test_defaults.py holds them to the installed version.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

DESTINATION = (
    Path(__file__).parent.parent / "planner" / "models" / "families" / "config_defaults.jsonl"
)

_NOISE = re.compile(
    r"_token(_id|_index|s)?$|_id$|_ids$|dropout|drop_|initializer|init_|^return|_loss|_eps$"
    r"|^output_(hidden|attentions|router|past|logits)|epsilon|_coef$|^use_cache$|^chunk_size_feed|^is_encoder|theta|temperature|jitter|noise"
    r"|norm_min|norm_max|^rope_param|_prob$|_std$|pretraining_tp|_beta|_alpha|_bos_|mask_time"
    r"|mask_feature|^summary|^scale_attn|scoring|^vocab_file|label|_plan$"
)
# Spellings that classes take from their keyword arguments, not from `attribute_map`.
_OLDER = {"bloom": {"hidden_size": "n_embed"}, "falcon": {"hidden_size": "n_embed"}}


def facts(model_type: str, config_class: Any) -> dict[str, Any]:
    """The line of one configuration class."""
    defaults = {
        name: value
        for name, value in config_class.default_config_fields().items()
        if not _NOISE.search(name)
        and not isinstance(value, dict)
        and isinstance(value, (bool, int, float, str, list, tuple))
    }
    aliases = {k: v for k, v in config_class.attribute_map.items() if not _NOISE.search(k)}
    aliases.update(_OLDER.get(model_type, {}))
    sections = {
        name: {"model_type": spec.model_type, **_plain(spec.init_kwargs)}
        for name, spec in config_class.sub_configs_defaults.items()
    }
    return {
        "model_type": model_type,
        "defaults": {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()},
        "aliases": aliases,
        "sections": sections,
        "fixed": [
            name
            for name, spec in config_class.sub_configs_defaults.items()
            if hasattr(spec.config_class, "default_config_fields")
        ],
    }


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """What a section starts from where the config leaves it out altogether."""
    return {k: v for k, v in given.items() if isinstance(v, (bool, int, float, str))}


def all_facts() -> dict[str, dict[str, Any]]:
    """Model type -> facts, for every generative model transformers has and its sections."""
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    waiting: list[tuple[str, Any]] = []
    for mapping in (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    ):
        waiting += [(name, CONFIG_MAPPING[name]) for name in mapping]
    defaults: dict[str, dict[str, Any]] = {}
    while waiting:
        name, config_class = waiting.pop(0)
        if name in defaults:
            continue
        defaults[name] = facts(name, config_class)
        for spec in config_class.sub_configs_defaults.values():
            known = spec.config_class
            if not hasattr(known, "default_config_fields"):
                known = CONFIG_MAPPING[spec.model_type]
            waiting.append((spec.model_type, known))
    return defaults


def main() -> None:
    defaults = all_facts()
    lines = [json.dumps(defaults[name], sort_keys=False) for name in sorted(defaults)]
    DESTINATION.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} model types, {DESTINATION.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
