"""Prompts of a batch are cut so that what is staged at once fits."""

from kvpareto.runtime.vllm_plugin.batch import PromptPart, cut_prompts


def test_parts_by_hand() -> None:
    # two decode, then contexts of 70, 40, 40, 200
    starts = [0, 1, 2, 32, 44, 84, 90]
    assert cut_prompts(starts, [500, 9, 70, 40, 40, 200], 2, 110) == (
        PromptPart(2, 4, 2, 44, 30, 70),
        PromptPart(4, 5, 44, 84, 40, 40),
        PromptPart(5, 6, 84, 90, 6, 200),
    )


def test_a_batch_that_only_decodes_has_no_part() -> None:
    assert cut_prompts([0, 1, 2], [7, 8], 2, 100) == ()


def test_all_that_fits_is_one_part() -> None:
    assert cut_prompts([0, 5, 9], [50, 50], 0, 100) == (PromptPart(0, 2, 0, 9, 5, 50),)
    assert len(cut_prompts([0, 5, 9], [50, 51], 0, 100)) == 2
