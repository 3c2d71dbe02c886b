import pytest
import torch

from unimodal.training import precision


@pytest.fixture(autouse=True)
def quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread (the machine is shared), and no timing of matrix products."""
    torch.set_num_threads(1)
    monkeypatch.setattr(precision, "gemm_rate", lambda device, dtype: 1e9)
