"""Which parameter is optimised how: weight decay or not, Muon or AdamW, and the rate over time.

Decay shrinks what is used as a matrix; norms, biases, embeddings and learned queries have a scale that
means something and are left alone.  Muon takes the matrices of the blocks, where it was shown to help.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from unimodal.errors import UserError
from unimodal.paths.codes import CodeHead
from unimodal.training.config import TrainSection
from unimodal.training.muon import MOMENTUM, Muon

# Layers whose `weight` multiplies the input: these alone are decayed.
MULTIPLYING = (nn.Linear, nn.modules.conv._ConvNd)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are optimised, by name; a shared one appears once."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def decayed_names(module: nn.Module) -> set[str]:
    """Names of the parameters that weight decay applies to.  A head tied to an embedding is not one."""
    embeddings = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    names = set()
    for prefix, layer in module.named_modules():
        if isinstance(layer, MULTIPLYING) and id(layer.weight) not in embeddings:
            names.add(f"{prefix}.weight" if prefix else "weight")
    return names


def block_matrices(module: nn.Module) -> set[str]:
    """Names of the linear and convolution weights inside numbered layers (items of a ModuleList).

    Output heads are none, of which a path may have one for each of several codebooks.
    """
    heads = {id(layer) for head in module.modules() if isinstance(head, CodeHead) for layer in head.modules()}
    weights = {
        f"{prefix}.weight"
        for prefix, layer in module.named_modules()
        if isinstance(layer, MULTIPLYING)
        and any(part.isdigit() for part in prefix.split("."))
        and id(layer) not in heads
    }
    return weights & decayed_names(module)


def build_optimizers(module: nn.Module, train: TrainSection, muon_dtype: torch.dtype) -> list[Optimizer]:
    """AdamW for everything, or Muon for the block matrices and AdamW for the rest."""
    parameters = trained(module)
    if not parameters:
        raise UserError(
            "The model has no trainable parameters: everything is frozen. Check the model section."
        )
    decayed = decayed_names(module)
    muon = block_matrices(module) & parameters.keys() if train.optimizer == "muon" else set()
    if train.optimizer == "muon" and not muon:
        raise UserError("train.optimizer is muon, but the model has no block matrices; use adamw.")
    rest = [name for name in parameters if name not in muon]
    optimizers: list[Optimizer] = []
    if rest:
        groups = [
            {"params": [parameters[n] for n in rest if n in decayed], "weight_decay": train.weight_decay},
            {"params": [parameters[n] for n in rest if n not in decayed], "weight_decay": 0.0},
        ]
        betas = (train.adam_beta1, train.adam_beta2)
        optimizers.append(
            AdamW([g for g in groups if g["params"]], lr=train.learning_rate, betas=betas, fused=True)
        )
    if muon:
        matrices = [parameters[name] for name in parameters if name in muon]
        optimizers.append(
            Muon(matrices, train.muon_learning_rate, weight_decay=train.weight_decay, dtype=muon_dtype)
        )
    return optimizers


def rate_factor(train: TrainSection) -> Callable[[int], float]:
    """The learning rate of a step (from 0) as a share of its peak.

    Linear warm-up whose first step already moves, then constant; or a half cosine that ends at 0 one step
    after the last; or constant until a straight way to 0 over the last `decay_steps` (warmup_stable_decay, Hu
    et al. 2024), which lets a run be made longer from a checkpoint of its constant part.
    """

    def factor(step: int) -> float:
        if step < train.warmup_steps:
            return (step + 1) / (train.warmup_steps + 1)
        if train.lr_scheduler_type == "constant":
            return 1.0
        if train.lr_scheduler_type == "warmup_stable_decay":
            return min(1.0, max(0.0, (train.steps - step) / (train.decay_steps + 1)))
        progress = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return factor


def build_schedulers(optimizers: list[Optimizer], train: TrainSection, done: int = 0) -> list[LambdaLR]:
    """One schedule an optimizer, standing after `done` steps."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return [LambdaLR(optimizer, rate_factor(train), last_epoch=done - 1) for optimizer in optimizers]


def optimizer_tensors(module: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """The state of all optimizers as flat tensors named `parameter:kind`; rates are not part of it."""
    names = {p: name for name, p in trained(module).items()}
    return {
        f"{names[p]}:{kind}": value
        for optimizer in optimizers
        for p, state in optimizer.state.items()
        for kind, value in state.items()
    }


def check_kinds(module: nn.Module, optimizers: list[Optimizer], keys: Iterable[str]) -> None:
    """Raise UserError if what `optimizer_tensors` named by `keys` is of another kind of optimizer."""
    parameters, owner = trained(module), _owners(optimizers)
    for key in keys:
        name, kind = key.rsplit(":", 1)
        ours = isinstance(owner[parameters[name]], Muon)
        before, now = (("adamw", "muon")[one] for one in (kind == MOMENTUM, ours))
        if before != now:
            raise UserError(
                f"The checkpoint's averages of {name} are those of {before}, but the recipe gives it to "
                f"{now}. Resume with the train.optimizer of the run, or begin a new run with model.init_from."
            )


def _owners(optimizers: list[Optimizer]) -> dict[Tensor, Optimizer]:
    return {p: o for o in optimizers for group in o.param_groups for p in group["params"]}


def load_optimizer_tensors(
    module: nn.Module, optimizers: list[Optimizer], tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave.

    A state as large as its parameter is laid out in memory as that is: fused optimizers go through both side
    by side, and a file has lost the order in which convolutions may be kept (channels last).
    Raises UserError if they are of another kind of optimizer.
    """
    check_kinds(module, optimizers, tensors)
    parameters, owner = trained(module), _owners(optimizers)
    for key, value in tensors.items():
        name, kind = key.rsplit(":", 1)
        p = parameters[name]
        if value.shape == p.shape:
            value = torch.empty_like(p, dtype=value.dtype).copy_(value)
        owner[p].state[p][kind] = value.to(p.device)
