import math

import pytest
import torch
from torch import nn

from tests.paths.cases import CASES
from tests.training.toy import ToyModule
from unimodal.errors import UserError
from unimodal.training.config import TrainSection
from unimodal.training.muon import Muon, orthogonalise
from unimodal.training.optimizers import (
    block_matrices,
    build_optimizers,
    build_schedulers,
    decayed_names,
    load_optimizer_tensors,
    optimizer_tensors,
    rate_factor,
)


@pytest.mark.parametrize("shape", [(32, 32), (16, 48), (48, 16)])
def test_orthogonalise_keeps_singular_vectors_and_levels_values(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = []
    for _ in range(3):  # known singular values over two orders of magnitude
        u, _, vh = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
        matrices.append(u @ torch.diag(torch.logspace(-2, 0, len(vh))) @ vh)
    result = orthogonalise(torch.stack(matrices))
    for matrix, flat in zip(matrices, result):
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        core = u.mT @ flat @ vh.mT  # diagonal exactly if the singular vectors are kept
        values = core.diagonal()
        assert values.min() > 0.5
        assert values.max() < 1.3
        torch.testing.assert_close(core, torch.diag(values), atol=2e-4, rtol=0)
        torch.testing.assert_close(u @ core @ vh, flat, atol=2e-4, rtol=0)


def test_bfloat16_agrees_roughly() -> None:
    matrices = torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(1))
    low = orthogonalise(matrices, torch.bfloat16)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, orthogonalise(matrices), atol=0.03, rtol=0)


def test_a_zero_gradient_moves_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


def test_muon_follows_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 8), (24, 8), (8, 24), (8, 8)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    ours = [torch.nn.Parameter(p.clone()) for p in start]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    one = Muon(ours, lr=0.02, weight_decay=0.1, dtype=torch.bfloat16)
    two = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True)
    for _ in range(4):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        one.step()
        two.step()
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)  # theirs rounds to bf16 at other places


def test_muon_refuses_what_is_not_a_matrix() -> None:
    with pytest.raises(ValueError, match="matrices and convolutions"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


def test_decay_spares_norms_biases_embeddings_and_queries() -> None:
    assert decayed_names(ToyModule()) == {
        "blocks.0.weight",
        "blocks.1.weight",
        "head.weight",
        "unused.weight",
    }
    tied = torch.nn.ModuleDict({"embed": torch.nn.Embedding(5, 3), "head": torch.nn.Linear(3, 5, bias=False)})
    tied["head"].weight = tied["embed"].weight
    assert decayed_names(tied) == set()


def test_every_trained_parameter_has_one_optimizer() -> None:
    module = ToyModule()
    module.head.weight.requires_grad_(False)
    train = TrainSection(steps=1, optimizer="muon", weight_decay=0.1)
    optimizers = build_optimizers(module, train, torch.float32)
    held = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in module.parameters() if p.requires_grad)
    assert block_matrices(module) == {"blocks.0.weight", "blocks.1.weight"}
    muon = next(o for o in optimizers if isinstance(o, Muon))
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(layer.weight) for layer in module.blocks]


def test_a_wholly_frozen_model_is_a_mistake() -> None:
    module = ToyModule().requires_grad_(False)
    with pytest.raises(UserError, match="frozen"):
        build_optimizers(module, TrainSection(steps=1), torch.float32)


def test_warm_up_then_cosine() -> None:
    factor = rate_factor(TrainSection(steps=110, warmup_steps=10))
    assert [factor(step) for step in range(10)] == pytest.approx([(k + 1) / 11 for k in range(10)])
    assert factor(10) == 1
    assert factor(60) == pytest.approx(0.5)
    assert factor(85) == pytest.approx((1 + math.cos(0.75 * math.pi)) / 2)
    assert factor(110) == pytest.approx(0)
    assert rate_factor(TrainSection(steps=110, lr_scheduler_type="constant"))(109) == 1


def test_stable_then_decay() -> None:
    stable = {"lr_scheduler_type": "warmup_stable_decay"}
    factor = rate_factor(TrainSection(steps=100, warmup_steps=10, decay_steps=19, **stable))
    assert [factor(step) for step in (4, 10, 50, 80)] == pytest.approx([5 / 11, 1, 1, 1])
    assert [factor(step) for step in (81, 85, 99)] == pytest.approx([0.95, 0.75, 0.05])  # 20 equal parts
    for wrong in ({"steps": 9}, {"steps": 9, "decay_steps": 10}):
        with pytest.raises(ValueError, match="decay_steps"):
            TrainSection(**wrong, **stable)
    with pytest.raises(ValueError, match="warmup_stable_decay"):
        TrainSection(steps=9, decay_steps=3)


def test_a_schedule_put_back_goes_on() -> None:
    train = TrainSection(steps=20, warmup_steps=3, learning_rate=0.5)

    def rates(done: int, count: int) -> list[float]:
        optimizers = build_optimizers(ToyModule(), train, torch.float32)
        schedulers = build_schedulers(optimizers, train, done)
        found = []
        for _ in range(count):
            found.append(optimizers[0].param_groups[0]["lr"])
            optimizers[0].step()
            schedulers[0].step()
        return found

    straight = rates(0, 20)
    assert straight == [0.5 * rate_factor(train)(step) for step in range(20)]
    assert rates(7, 13) == straight[7:]


def test_muon_takes_a_convolution_as_the_matrix_of_its_window() -> None:
    convolution = torch.nn.Conv2d(6, 8, 3, bias=False)
    flat = torch.nn.Linear(54, 8, bias=False)
    flat.weight.data.copy_(convolution.weight.data.flatten(1))
    gradient = torch.randn_like(convolution.weight)
    for layer, g in (convolution, gradient), (flat, gradient.flatten(1)):
        layer.weight.grad = g.clone()
        Muon([layer.weight], 0.1).step()
    torch.testing.assert_close(convolution.weight.flatten(1), flat.weight)


def test_state_of_channels_last_convolutions_goes_on_exactly():
    """A fused optimizer walks through weight and state side by side: both must lie in memory alike."""
    train = TrainSection(steps=9, learning_rate=0.1)

    def conv():
        torch.manual_seed(0)
        return nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)

    def step(module, optimizers, seed):
        picture = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        module(picture.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    straight = conv()
    optimizers = build_optimizers(straight, train, torch.float32)
    step(straight, optimizers, 1)
    saved = {k: v.contiguous().clone() for k, v in optimizer_tensors(straight, optimizers).items()}
    resumed = conv()
    with torch.no_grad():
        for name, weight in resumed.named_parameters():
            weight.copy_(straight.get_parameter(name).contiguous())
    others = build_optimizers(resumed, train, torch.float32)
    load_optimizer_tensors(resumed, others, saved)
    step(straight, optimizers, 2)
    step(resumed, others, 2)
    assert torch.equal(straight.weight, resumed.weight)
    for parameter, state in others[0].state.items():
        assert state["exp_avg"].stride() == parameter.stride()


@pytest.mark.parametrize("case", ["masked", "next_token", "next_scale"])
def test_heads_of_codes_are_no_block_matrices(case: str) -> None:
    model = next(one for name, one in CASES.items() if name.startswith(case)).model()
    matrices = block_matrices(model)
    assert any(name.startswith("decoder.layers") for name in matrices)
    assert not [name for name in matrices if name.startswith("path.head")]


@pytest.mark.parametrize(("before", "now"), [("muon", "adamw"), ("adamw", "muon")])
def test_averages_of_another_optimizer_are_refused(before: str, now: str) -> None:
    module = ToyModule()
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    mine = build_optimizers(module, TrainSection(steps=1, optimizer=before), torch.float32)
    for optimizer in mine:
        optimizer.step()
    kept = optimizer_tensors(module, mine)
    others = build_optimizers(module, TrainSection(steps=1, optimizer=now), torch.float32)
    with pytest.raises(
        UserError, match=rf"blocks\.0\.weight are those of {before}, but .* to {now}\. Resume"
    ):
        load_optimizer_tensors(module, others, kept)
