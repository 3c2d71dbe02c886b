"""The decoder is the Llama/Qwen decoder: equal to transformers on the same weights, with text positions."""

import pytest
import torch

from unimodal.attention.door import make_plan
from unimodal.model.config import ModelConfig
from unimodal.model.decoder import Decoder
from unimodal.model.rope import inverse_frequencies, rotate, rotation
from unimodal.sequence.mask import Marks

SHAPE = dict(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
)


def theirs(family: str):
    import transformers

    torch.manual_seed(0)
    name = {"llama": "Llama", "qwen3": "Qwen3"}[family]
    config = getattr(transformers, f"{name}Config")(**SHAPE, rms_norm_eps=1e-6, rope_theta=10_000.0)
    return getattr(transformers, f"{name}Model")(config).eval()


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_hidden_states_equal(family):
    reference = theirs(family)
    decoder = Decoder(ModelConfig(**SHAPE, qk_norm=family == "qwen3")).eval()
    weights = {
        name.replace("layers.0.", "layers.0.experts.0.").replace("layers.1.", "layers.1.experts.0."): value
        for name, value in reference.state_dict().items()
        if not name.startswith("embed_tokens")
    }
    decoder.load_state_dict(weights)
    embeds = torch.randn(1, 12, 32)
    steps = torch.arange(12)[None]
    marks = Marks(steps * 0, steps, steps * 0, torch.zeros(1, 12, dtype=torch.bool))
    with torch.no_grad():
        ours = decoder(embeds, steps[..., None].expand(1, 12, 3), make_plan(marks), marks.hidden)
        expected = reference(inputs_embeds=embeds).last_hidden_state
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_rotation_depends_on_distance_along_each_axis():
    """A rotated product of query and key is a function of the difference of their positions, per axis."""
    torch.manual_seed(0)
    frequencies = inverse_frequencies(24, 100.0)
    q, k = torch.randn(2, 1, 1, 1, 24)

    def product(at_q, at_k):
        turned = [rotate(x, *rotation(torch.tensor([[at]]), frequencies)) for x, at in ((q, at_q), (k, at_k))]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(product([5, 3, 2], [4, 1, 0]), product([15, 7, 12], [14, 5, 10]))
    assert (product([5, 3, 2], [4, 1, 0]) - product([5, 3, 2], [4, 1, 1])).abs() > 1e-4
