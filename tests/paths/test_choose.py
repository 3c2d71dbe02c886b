"""Choosing codes against the definition of its settings."""

import numpy as np
import pytest
import torch

from tests.paths.toy import chances, fits
from unimodal.diffusion.guidance import Guidance
from unimodal.paths.choose import Choice, choose, likeliest, ramped

SETTINGS = [
    {},
    {"temperature": 0.5},
    {"top_k": 3},
    {"top_p": 0.7},
    {"temperature": 2.0, "top_k": 5, "top_p": 0.6},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_codes_are_drawn_with_their_probability(settings):
    logits = torch.randn(7, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    codes = choose(logits.expand(1, 20_000, 7), [generator], Choice(**settings))
    assert fits(np.bincount(codes[0], minlength=7), chances(logits, **settings))


def test_temperature_0_takes_the_likeliest_and_no_chance():
    logits, generator = torch.randn(2, 3, 5), torch.Generator().manual_seed(0)
    before = generator.get_state()
    codes = choose(logits, [generator, generator], Choice(temperature=0))
    assert torch.equal(codes, logits.argmax(-1))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_likeliest_are_those_of_the_definition(settings):
    logits = 2 * torch.randn(20, 9, generator=torch.Generator().manual_seed(0))
    settings = {name: value for name, value in settings.items() if name != "temperature"}
    kept = likeliest(logits, **settings)
    for row, found in zip(logits, kept):
        assert np.array_equal(chances(row, **settings) > 0, found.isfinite().numpy())
        assert torch.equal(row[found.isfinite()], found[found.isfinite()])


def test_exactly_top_k_are_kept_where_logits_are_equal():
    assert likeliest(torch.zeros(4, 6), top_k=2).isfinite().sum(-1).tolist() == [2] * 4


def test_a_batch_equals_its_rows_alone():
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(seed) for seed in (4, 5, 6)]
    together = choose(logits, generators, Choice())
    for row, seed in enumerate((4, 5, 6)):
        alone = choose(logits[row : row + 1], [torch.Generator().manual_seed(seed)], Choice())
        assert torch.equal(alone[0], together[row])


def test_a_ramp_goes_from_no_guidance_to_all_of_it():
    guidance = Guidance(3.0, 1.5)
    assert ramped(guidance, 0) == Guidance(1.0, 1.0)
    assert ramped(guidance, 0.5) == Guidance(2.0, 1.25)
    assert ramped(guidance, 1) == guidance
