"""Options that change nothing for a workload are said, and those that change something are not."""

import pytest

from kvpareto.planner.formats.configuration import Configuration
from kvpareto.planner.formats.without_effect import without_effect
from kvpareto.planner.workload import Workload

WORKLOAD = Workload(4096, output=512)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("w4a16-k4v4+pc4096", "+pc4096 cuts nothing"),
        ("w4a16-k4v4+pc8192", "one chunk"),
        ("w4a16-k4v4+sink4608", "+sink4608 keep all 4,608 tokens in 16 bits"),
        ("w4a16-k4v4+res2304+sink2304", "no key or value is quantized"),
        ("w4a16-k4v4+res4096", "only what is generated is quantized"),
        ("w4a16-k8v8+protect{0}:k4v8", "lowers its layers' keys from 8 to 4 bits"),
        ("w4a16-k8v8+protect{0}:k4v4", "values from 8 to 4 bits: the reverse of protection"),
        ("w4a16-k8v8+protect{0}:k8v8", "+protect changes nothing"),
    ],
)
def test_what_has_no_effect_is_said(config: str, said: str) -> None:
    notes = without_effect(Configuration.parse(config), WORKLOAD)
    assert any(said in note for note in notes)


@pytest.mark.parametrize(
    "config",
    ["w4a16-k4v4+res128+sink4+protect{0,1}:k8v8+pc4095", "w16a16-k16v16", "w4a16-k4v2+pcdyn"],
)
def test_what_has_an_effect_is_not(config: str) -> None:
    assert without_effect(Configuration.parse(config), WORKLOAD) == ()
