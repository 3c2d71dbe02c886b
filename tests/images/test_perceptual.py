"""The perceptual term: outlines in closed form, and LPIPS only where its weights are at hand."""

import importlib.machinery
import logging
import sys
import types

import pytest
import torch
from torchmetrics.image import lpip

from unimodal.images import perceptual
from unimodal.images.losses import edge_error, pyramid_edge_error


def test_outlines_at_every_size():
    flat = torch.zeros(1, 3, 8, 8)
    assert pyramid_edge_error(flat + 0.3, flat).max() < 1e-6  # a shift has no outlines
    step = flat.clone()
    step[..., 4:] = 1.0  # one step of height 1: among 7 differences, then 3, then 1
    torch.testing.assert_close(pyramid_edge_error(step, flat), torch.tensor([(1 / 7 + 1 / 3 + 1) / 3]))
    torch.testing.assert_close(pyramid_edge_error(step, flat, levels=1), edge_error(step, flat))


def test_without_its_weights_the_reason_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None if name == "torchvision" else object())
    with caplog.at_level(logging.WARNING):
        assert perceptual.likeness(64) is pyramid_edge_error
    assert "torchvision is not installed" in caplog.text


class Lpips(torch.nn.Module):
    """As torchmetrics' is built and called: a network of its own that gives (B, 1, 1, 1)."""

    def __init__(self, net_type: str):
        super().__init__()
        assert net_type == "alex"
        self.net = Distance()


class Distance(torch.nn.Module):
    """Mean squares, through a weight that must stay as it is."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, one, other):
        assert not self.weight.requires_grad
        return self.weight * (one - other).square().mean((1, 2, 3), keepdim=True)


def test_lpips_needs_the_file_and_large_pictures(monkeypatch, tmp_path):
    models = types.ModuleType("torchvision.models")
    weights = types.SimpleNamespace(url="https://example.org/models/alexnet-1234.pth")
    models.AlexNet_Weights = types.SimpleNamespace(DEFAULT=weights)
    package = types.ModuleType("torchvision")
    package.__spec__ = importlib.machinery.ModuleSpec("torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "alexnet-1234.pth is not there" in perceptual.missing_for_lpips(64)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-1234.pth").touch()
    assert perceptual.missing_for_lpips(64) is None
    assert "too small" in perceptual.missing_for_lpips(16)
    monkeypatch.setattr(lpip, "LearnedPerceptualImagePatchSimilarity", Lpips)
    compare = perceptual.likeness(64)
    pixels = torch.rand(3, 3, 8, 8) * 2 - 1
    restored = (2 * pixels).requires_grad_()  # what goes beyond the range is cut before it is compared
    found = compare(restored, pixels)
    torch.testing.assert_close(found, (2 * pixels).clamp(-1, 1).sub(pixels).square().mean((1, 2, 3)))
    assert (compare(pixels, pixels) == 0).all()
    found.sum().backward()
    assert restored.grad.abs().sum() > 0
    assert pytest.approx(0) == pyramid_edge_error(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)).item()
