import torch
from torch import nn

from unimodal.training.ema import Ema


def test_closed_form_with_warm_up() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    ema = Ema(module, 0.5)
    values = [1.0, 3.0, -2.0, 5.0, 4.0, 0.5, 1.0, 9.0, 2.0, 7.0]
    for value in values:
        module.weight.data.fill_(value)
        ema.update()
    # The mean is the initial value times the product of decays, plus each value with what came after it.
    decays = [min(0.5, (1 + n) / (10 + n)) for n in range(1, 11)]
    assert decays[0] < decays[-1] == 0.5
    expected = 0.0
    for index, value in enumerate(values):
        share = 1 - decays[index]
        for later in decays[index + 1 :]:
            share *= later
        expected += share * value
    assert abs(ema.means["weight"].item() - expected) < 1e-5


def test_swaps_in_and_out_also_after_an_error() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    ema = Ema(module, 0.9)
    before = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    try:
        with ema.swapped_in():
            assert torch.equal(module.weight, before)
            raise RuntimeError
    except RuntimeError:
        pass
    assert torch.equal(module.weight, before + 1)
    assert torch.equal(ema.means["weight"], before)
    assert set(ema.means) == {"weight"}  # what is frozen needs no mean
