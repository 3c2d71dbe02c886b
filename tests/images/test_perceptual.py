"""The perceptual term: outlines in closed form, and LPIPS only where its weights are at hand."""

import importlib.machinery
import logging
import sys
import types

import pytest
import torch

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
    monkeypatch.setattr(perceptual, "_lpips", lambda: "lpips")
    assert perceptual.likeness(64) == "lpips"
    assert pytest.approx(0) == pyramid_edge_error(torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)).item()
