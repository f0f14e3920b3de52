"""What a person should know of a model that was calibrated, in sentences."""

from typing import Any

from .affine_proposal import sentence


def findings_of(meta: dict[str, Any]) -> list[str]:
    """Sentences without their stops, of what write_profile put into meta.json."""
    findings = []
    if meta["breaks"] is not None:
        findings.append(
            f"From {meta['breaks']:,} tokens on, the unquantized model scores less than half of "
            "its best score"
        )
    findings += [
        f"{broken['config']} keeps less than half of its score from {broken['context']:,} tokens on"
        for broken in meta["broken"]
    ]
    if meta["protect"]:
        sets = " and ".join(f"{{{','.join(map(str, layers))}}}" for layers in meta["protect"])
        findings.append(f"Protected layers that plans now consider: {sets}")
    if meta["affine"] is not None:
        findings.append(sentence(meta["affine"]))
    return findings
