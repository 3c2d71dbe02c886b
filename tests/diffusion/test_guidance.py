"""Guidance: its formula, its branches, and that it is exact for any batch size."""

import pytest
import torch

from unimodal.diffusion.guidance import Guidance, check_nulls, combine
from unimodal.errors import UserError
from unimodal.generation.settings import guidance_of
from unimodal.model.config import Sampling

FULL, TEXT, BOTH = (torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3))


def guided(guidance, has_image=True):
    nulls = {"text": TEXT, "both": BOTH}
    return combine(FULL, {kind: nulls[kind] for kind in guidance.branches(has_image)}, guidance)


@pytest.mark.parametrize("text", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("image", [1.0, 1.5, 2.0])
def test_two_conditions_follow_the_formula_with_the_fewest_branches(text, image):
    expected = BOTH + image * (TEXT - BOTH) + text * (FULL - TEXT)
    torch.testing.assert_close(guided(Guidance(text, image)), expected, atol=1e-5, rtol=1e-5)
    needed = 0 if text == image == 1 else 1 if image == 1 or text == image else 2
    assert len(Guidance(text, image).branches(True)) == needed


def test_without_an_image_only_the_text_counts():
    assert Guidance(3.0, 2.0).branches(has_image=False) == ["text"]
    assert Guidance(1.0, 2.0).branches(has_image=False) == []
    torch.testing.assert_close(guided(Guidance(3.0, 2.0), False), TEXT + 3 * (FULL - TEXT))


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_every_picture_is_guided_alone(rescale):
    """Mistake: renormalising over the whole batch is right for batch 1 only."""
    guidance = Guidance(4.0, 2.0, rescale=rescale)
    together = guided(guidance)
    for row in range(3):
        one = slice(row, row + 1)
        alone = combine(FULL[one], {"text": TEXT[one], "both": BOTH[one]}, guidance)
        torch.testing.assert_close(together[one], alone)


def test_full_rescale_keeps_the_spread_of_the_plain_prediction():
    out = guided(Guidance(5.0, 2.0, rescale=1.0))
    torch.testing.assert_close(out.std((1, 2)), FULL.std((1, 2)))


def test_interval():
    guidance = Guidance(2.0, interval=(0.4, 1.0))
    assert [guidance.applies(t) for t in (0.3, 0.4, 0.5, 1.0)] == [False, False, True, True]


def test_a_model_may_ask_for_an_interval_and_a_spread():
    sampling = Sampling(guidance=3.0, guidance_interval=[0.2, 0.9], guidance_rescale=0.5)
    assert guidance_of(sampling) == Guidance(3.0, 1.0, (0.2, 0.9), 0.5)
    assert guidance_of(sampling, text=1.0).interval == (0.2, 0.9)
    for interval in ([0.5, 0.5], [0.0, 1.5]):
        with pytest.raises(ValueError, match="guidance_interval"):
            Sampling(guidance_interval=interval)


def test_nulls_must_have_been_trained():
    check_nulls(["text"], {"text": 0.1, "both": 0.0})
    with pytest.raises(UserError, match="both dropped"):
        check_nulls(["text", "both"], {"text": 0.1, "both": 0.0})
