"""Which number types pay on this device, decided by measuring once.

Support for bfloat16 says nothing about speed: a CPU may multiply it seven times faster than float32
(AMX) or a hundred times slower (emulation).  So both are timed and the winner is logged with the rates.
"""

from dataclasses import dataclass

import torch

from unimodal.errors import UserError
from unimodal.training.throughput import gemm_rate

WORTH = 1.5  # bf16 must be this much faster before its rounding is worth it


@dataclass(frozen=True)
class Precision:
    """What is computed in which type, and why.  Weights and optimizer state are fp32 throughout."""

    autocast: torch.dtype | None  # type of the forward pass; None: float32 without autocast
    orthogonalise: torch.dtype  # type of Muon's Newton-Schulz iteration
    peak: float  # FLOP/s of a matrix product in the type of the forward pass
    reason: str

    @property
    def names(self) -> dict[str, str]:
        """The two choices as JSON, for the checkpoint: a resumed run must not choose anew."""
        return {
            "precision": "fp32" if self.autocast is None else "bf16",
            "orthogonalise": "bf16" if self.orthogonalise == torch.bfloat16 else "fp32",
        }


def choose_precision(asked: str, device: torch.device, resumed: dict[str, str] | None = None) -> Precision:
    """Decide `auto` by timing matrix products; `resumed` are the `names` of the run that goes on."""
    # In turns, so that a busy moment of the machine does not fall on one type alone.
    turns = [(gemm_rate(device, torch.float32), gemm_rate(device, torch.bfloat16)) for _ in range(2)]
    fp32, bf16 = (max(rates) for rates in zip(*turns))
    measured = (
        f"matrix products on {device.type}: {fp32 / 1e9:,.0f} GFLOP/s in fp32, {bf16 / 1e9:,.0f} in bf16"
    )
    faster = bf16 >= WORTH * fp32
    orthogonalise = "bf16" if faster else "fp32"
    if asked == "auto":
        chosen, why = ("bf16" if faster else "fp32"), measured
        if resumed:
            chosen, orthogonalise = resumed["precision"], resumed["orthogonalise"]
            why = f"as in the resumed run; {measured}"
    else:
        chosen, why = asked, f"as the recipe says; {measured}"
        if resumed:
            orthogonalise = resumed["orthogonalise"]
    if chosen == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError("train.precision is bf16, but this GPU has no bf16 units; use fp32 or auto.")
    return Precision(
        autocast=torch.bfloat16 if chosen == "bf16" else None,
        orthogonalise=torch.bfloat16 if orthogonalise == "bf16" else torch.float32,
        peak=bf16 if chosen == "bf16" else fp32,
        reason=f"{chosen} ({why})",
    )
