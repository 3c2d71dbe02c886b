import math

import pytest
import torch

from unimodal.training import precision, throughput
from unimodal.training.precision import choose_precision
from unimodal.training.tally import Tally, merge_bins
from unimodal.training.throughput import Meter, gemm_rate

CPU = torch.device("cpu")


def test_meter_leaves_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: clock[0])
    meter = Meter(peak=1000.0, _start=clock[0])
    meter.add(tokens=30, budget=40, flops=500)
    clock[0] += 2
    with meter.pause():
        clock[0] += 50
    meter.add(tokens=30, budget=40, flops=500)
    rates = meter.read()
    assert rates == {"tokens_per_second": 30, "padding": 0.25, "mfu": 0.5, "step_seconds": 1}
    assert meter.seconds == 2
    assert meter.to_go(10) == 10
    meter.add(tokens=1, budget=1, flops=1)
    clock[0] += 1
    assert meter.read()["tokens_per_second"] == 1  # counted anew


def test_gemm_rate_is_a_rate() -> None:
    rate = gemm_rate(CPU, torch.float32, seconds=0.02)
    assert math.isfinite(rate)
    assert rate > 1e6


@pytest.mark.parametrize(("bf16", "chosen"), [(1e9, "fp32"), (1.4e9, "fp32"), (7e9, "bf16")])
def test_auto_takes_the_faster_type(monkeypatch: pytest.MonkeyPatch, bf16: float, chosen: str) -> None:
    rates = {torch.float32: 1e9, torch.bfloat16: bf16}
    monkeypatch.setattr(precision, "gemm_rate", lambda device, dtype: rates[dtype])
    found = choose_precision("auto", CPU)
    assert found.names == {"precision": chosen, "orthogonalise": chosen}
    assert found.peak == (bf16 if chosen == "bf16" else 1e9)
    assert chosen in found.reason
    asked = choose_precision("fp32", CPU)
    assert asked.autocast is None
    assert asked.peak == 1e9


def test_a_resumed_run_computes_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {torch.float32: 1e9, torch.bfloat16: 7e9}
    monkeypatch.setattr(precision, "gemm_rate", lambda device, dtype: rates[dtype])
    before = {"precision": "fp32", "orthogonalise": "fp32"}
    assert choose_precision("auto", CPU, before).names == before


def test_losses_are_means_over_all_items() -> None:
    tally = Tally()
    tally.add({"text": 6.0, "image": 1.0}, {"text": 3.0, "image": 2.0}, {"text": 1.0, "image": 2.0})
    tally.add({"text": 2.0, "image": 0.0}, {"text": 1.0, "image": 0.0}, {"text": 1.0, "image": 2.0})
    tally.add_bins({"image": (torch.tensor([1.0, 3.0, 8.0]), torch.tensor([0.0, 0.09, 1.0]))})
    tally.add_bins({"image": (torch.tensor([5.0]), torch.tensor([0.55]))})
    bins = merge_bins([tally.bin_lists(), {}, {"image": [[1.0] + [0.0] * 9, [1.0] + [0.0] * 9]}])
    found = tally.losses(bins)
    assert found["loss_text"] == 2.0
    assert found["loss_image"] == 0.5
    assert found["loss"] == 3.0
    means = found["loss_image_bins"]
    assert means[0] == pytest.approx(5 / 3)
    assert means[5] == 5.0
    assert means[9] == 8.0
    assert [i for i, mean in enumerate(means) if mean is None] == [1, 2, 3, 4, 6, 7, 8]


def test_a_loss_without_items_is_left_out() -> None:
    tally = Tally()
    tally.add({"text": 4.0, "image": 0.0}, {"text": 2.0, "image": 0.0}, {"text": 1.0, "image": 1.0})
    assert tally.losses({}) == {"loss": 2.0, "loss_text": 2.0}
