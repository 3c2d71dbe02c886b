"""The one door to attention: choose a backend once, make a plan once a forward, attend in every layer.

plan = make_plan(marks)                 # what depends on the mask only
out = attend(q, k, v, plan)             # (B, T, N, H) in every layer
"""

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from unimodal.attention import naive, sdpa
from unimodal.errors import UserError, nearest
from unimodal.sequence.mask import Marks

log = logging.getLogger("unimodal")
BACKENDS = ("naive", "sdpa", "flex", "flash")
_override: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A mask prepared for one backend, shared by all layers of a forward."""

    backend: ModuleType
    prepared: Any


def use_backend(name: str | None) -> None:
    """Override the choice for this process (`None` returns to choosing).

    Raises UserError for an unknown name.
    """
    global _override
    if name is not None and name not in BACKENDS:
        raise UserError(
            f"unknown attention backend {name!r}{nearest(name, BACKENDS)}; use one of {', '.join(BACKENDS)}"
        )
    _override = name


@contextmanager
def computed_by(name: str | None) -> Iterator[None]:
    """A context with `use_backend(name)`, after which is what was before."""
    before = _override
    use_backend(name)
    try:
        yield
    finally:
        use_backend(before)


def explain_named(name: str, device: str) -> str:
    """Who computes where a backend was asked for by name, on a device type."""
    if name == "flash" and device != "cuda":
        return (
            f"{device} has no flash kernels, so their decomposition is computed segment by segment with "
            "PyTorch's own attention: right, but slow"
        )
    if name == "flash":
        package = importlib.util.find_spec("flash_attn")
        return "the kernels of the flash-attn package" if package else "PyTorch's variable-length kernels"
    return {
        "naive": "every score is written out, as attention is defined",
        "sdpa": "PyTorch's own attention, the documents of a pack in padded batches",
        "flex": "PyTorch's FlexAttention",
    }[name]


def explain_backend(device: str, half: bool, pack: bool) -> tuple[str, str]:
    """The backend chosen for a device type, half precision or not, packs or any length, and why."""
    if device != "cuda":
        return "sdpa", f"{device} has no FlexAttention backward and no flash kernels"
    if half and importlib.util.find_spec("flash_attn"):
        return "flash", "the flash-attn package is installed and the model runs in half precision"
    if pack:
        return "flex", "CUDA device; flash-attn is not installed or the model runs in fp32"
    return "sdpa", "FlexAttention would be compiled for every length anew"


@cache
def choose_backend(device: str, half: bool, pack: bool) -> str:
    """The name that `explain_backend` gives; logs the reason once for each."""
    name, reason = explain_backend(device, half, pack)
    log.info("attention %s: %s (%s)", "of packs" if pack else "of any length", name, reason)
    return name


def _module(name: str) -> ModuleType:
    # flex and flash import the compiler or optional packages, so only when they are used.
    return {"naive": naive, "sdpa": sdpa}.get(name) or importlib.import_module(f"unimodal.attention.{name}")


def make_plan(q_marks: Marks, k_marks: Marks | None = None, half: bool = False, pack: bool = False) -> Plan:
    """Prepare the mask of queries against keys (the queries themselves if `k_marks` is None).

    pack  whether it is one of many packs of one length, for which compiling pays
    """
    k_marks = q_marks if k_marks is None else k_marks
    name = _override or choose_backend(q_marks.document.device.type, half, pack)
    if torch.is_grad_enabled() and name == "flex" and q_marks.document.device.type == "cpu":
        raise UserError(
            "FlexAttention has no backward on CPU. Train with the sdpa backend (the default there), or "
            "wrap the forward in torch.no_grad()."
        )
    backend = _module(name)
    return Plan(backend, backend.prepare(q_marks, k_marks))


def attend(q: Tensor, k: Tensor, v: Tensor, plan: Plan) -> Tensor:
    """Attention of q (B, Tq, N, H) over k, v (B, Tk, M, H) with M dividing N (grouped-query attention).

    Returns (B, Tq, N, H).
    """
    groups = q.shape[2] // k.shape[2]
    if groups > 1 and (plan.backend is naive or not q.is_cuda):  # kernels for CUDA share keys themselves
        k, v = (x.repeat_interleave(groups, dim=2) for x in (k, v))
    q, k, v = (rearrange(x, "b t n h -> b n t h") for x in (q, k, v))
    return rearrange(plan.backend.attend(q, k, v, plan.prepared), "b n t h -> b t n h")
