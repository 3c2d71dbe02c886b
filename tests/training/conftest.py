import pytest
import torch
import yaml

from tests.models import SIZES
from unimodal.images.codec import PixelPatches
from unimodal.training import precision
from unimodal.training.config import load_recipe


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread (the machine is shared), and no timing of matrix products."""
    torch.set_num_threads(1)
    monkeypatch.setattr(precision, "gemm_rate", lambda device, dtype: 1e9)


@pytest.fixture
def recipe(tmp_path):
    """Writes the recipe of a tiny unified model, with changes, and loads it."""
    PixelPatches(32).save(tmp_path / "codec")
    base = {
        "model": {
            **SIZES,
            "codec": str(tmp_path / "codec"),
            "drop": {"text": 0.3, "image": 0.1, "both": 0.1},
        },
        "data": {"sources": [{"source": "shapes"}], "tokens": 512, "workers": 0},
        "train": {"steps": 4, "logging_steps": 1, "save_steps": 2, "precision": "fp32", "optimizer": "muon"},
        "output": {"dir": str(tmp_path / "run")},
    }

    def make(*overrides):
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(base))
        return load_recipe(file, list(overrides))

    return make
