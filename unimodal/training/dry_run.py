"""What a run will take, told before it begins: parameters, operations, memory by part, speed, rows.

The forward and backward pass of one batch is made twice, to count what it allocates and to time it; no weight
is changed and nothing is written.  What comes on top of it (optimizer state, averages, copies while saving)
follows from shapes.  On a CPU the process itself counts too: Python, PyTorch, the rows, and what the
allocator keeps of freed tensors; so there the forecast goes on from what the system says that it held.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

import torch
from accelerate import Accelerator
from torch.optim import AdamW, Optimizer

from unimodal.attention.door import computed_by
from unimodal.training.allocations import bound_primitives, counted, resident
from unimodal.training.budget import within_budget
from unimodal.training.checkpoint import check_steps, find_checkpoint, read_state
from unimodal.training.config import Recipe
from unimodal.training.held_out import best_so_far
from unimodal.training.muon import Muon
from unimodal.training.optimizers import build_optimizers, trained
from unimodal.training.precision import choose_precision
from unimodal.training.processes import joined, noise_seed
from unimodal.training.resumed import check_goes_on
from unimodal.training.row_files import check_rows, check_rows_are_learned, check_rows_fit
from unimodal.training.run import Forward, enable_checkpointing, seed_everything
from unimodal.training.throughput import synchronize, timed
from unimodal.training.trainee import Batch, Trainee

PACKS = 8  # batches from which means are taken
STATES = {AdamW: 2, Muon: 1}  # numbers that an optimizer keeps beside a parameter
ORTHOGONALISED = 5  # copies of the matrices of one shape that Muon's step needs for a while


@dataclass(frozen=True)
class Forecast:
    """What a run will take.  Memory is in bytes, on the device that trains.

    trained, frozen  numbers in parameters; `frozen` includes a codec that is not trained
    steps, counted   optimizer steps, and how they were counted if the recipe gives operations instead
    flops            of an optimizer step, forward and backward without recomputation
    tokens, budget   positions used and computed in a step
    seconds          of a step, the optimizer's own time left out
    rate             floating point operations a second of a matrix product in the same precision
    memory           by part; `activations` at the end of a forward pass, `saving` while a checkpoint is saved
    peak             the most of these parts at one time
    total            the same with what the process takes beside them, if the device is the CPU
    data, machine    lines for a person about the rows, by name, and about the device
    """

    trained: int
    frozen: int
    steps: int
    counted: str | None
    flops: float
    tokens: float
    budget: float
    seconds: float
    rate: float
    memory: dict[str, int]
    peak: int
    total: int
    data: dict[str, str]
    machine: str

    @property
    def tokens_per_second(self) -> float:
        """Positions a second."""
        return self.tokens / self.seconds


def dry_run(recipe: Recipe) -> Forecast:
    """Everything about a run but the run.  Raises UserError for whatever the run itself would refuse."""
    attention = recipe.train.attention
    with nullcontext() if attention == "auto" else computed_by(attention):
        return _forecast(recipe)


def _forecast(recipe: Recipe) -> Forecast:
    bound_primitives()
    accelerator = joined()
    device = accelerator.device
    trainee, recipe, said = _accepted(recipe, accelerator)
    train = recipe.train
    module = trainee.module.to(device).train()
    if train.gradient_checkpointing:
        enable_checkpointing(module)
    precision = choose_precision(train.precision, device)
    packs = list(islice(trainee.batches(None, 0, 1), PACKS))
    passes = _passes(trainee, recipe, max(packs, key=lambda pack: pack.tokens), precision.autocast, device)

    micro, own = train.gradient_accumulation_steps, trained(module)
    gradients = sum(p.nbytes for p in own.values())
    optimizers = build_optimizers(module, train, precision.orthogonalise)
    memory = {
        "weights": sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers())),
        "gradients": gradients,
        "optimizer state": sum(map(_state_bytes, optimizers)),
        "averages": 0 if train.ema_decay is None else gradients,
        "activations": passes.activations,
        "saving": _saving_bytes(trainee, recipe.output.dtype, device),
    }
    lasting = memory["optimizer state"] + memory["averages"]
    step = max(map(_step_bytes, optimizers))

    def at_once(in_passes: int, after: int) -> int:
        return lasting + max(in_passes, after + step, after - gradients + memory["saving"])

    in_passes = memory["weights"] + passes.peak + gradients * (micro > 1)
    peak = at_once(in_passes, memory["weights"] + gradients)
    numbers = sum(p.numel() for p in own.values())
    return Forecast(
        trained=numbers,
        frozen=sum(p.numel() for p in module.parameters()) - numbers,
        steps=train.steps,
        counted=said,
        flops=micro * sum(map(trainee.flops, packs)) / PACKS,
        tokens=micro * sum(pack.tokens for pack in packs) / PACKS,
        budget=micro * sum(pack.budget for pack in packs) / PACKS,
        seconds=micro * passes.seconds,
        rate=precision.peak,
        memory=memory,
        peak=peak,
        total=at_once(passes.most, passes.kept) if device.type == "cpu" else peak,
        data=_about_data(trainee, recipe, packs),
        machine=f"{device.type}, {precision.reason}",
    )


def _accepted(recipe: Recipe, accelerator: Accelerator) -> tuple[Trainee, Recipe, str | None]:
    """What the recipe trains, the recipe with its steps, and how they were counted.

    Raises UserError for whatever the run would refuse.
    """
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    check_rows(recipe)
    checkpoint = find_checkpoint(recipe.train.resume, recipe.output.dir)
    seed_everything(recipe.train.seed)
    trainee: Trainee = recipe.model.build(recipe, checkpoint)
    check_rows_fit(trainee, recipe)
    recipe, said = within_budget(recipe, trainee, accelerator.num_processes)
    state = read_state(checkpoint) if checkpoint else {}
    best = best_so_far(recipe, trainee, state.get("best"))
    if checkpoint:
        check_steps(state["step"], recipe.train.steps)
        over = best is not None and best.over(recipe.train)
        check_rows_are_learned(recipe, checkpoint, over or state["step"] == recipe.train.steps)
        check_goes_on(recipe, trainee.module, checkpoint)
    return trainee, recipe, said


@dataclass(frozen=True)
class _Passes:
    """Of one batch forward and backward: bytes allocated, those of the whole process, and the seconds.

    activations, peak  at the end of the forward pass, and at most
    kept, most         that the process holds afterwards, with the gradients, and held at most
    """

    activations: int
    peak: int
    kept: int
    most: int
    seconds: float


def _passes(
    trainee: Trainee, recipe: Recipe, batch: Batch, autocast: torch.dtype | None, device: torch.device
) -> _Passes:
    """Make both passes twice, to count and to time them; no weight is changed."""
    module, forward, generator = trainee.module, Forward(trainee, autocast), torch.Generator(device)

    def run() -> torch.Tensor:
        generator.manual_seed(noise_seed(recipe.train.seed, 0, 0, 0))
        return forward(batch, generator, trainee.count(batch))[0]

    with counted(device, [*module.parameters(), *module.buffers()]) as held:
        loss = run()
        activations = held.live
        loss.backward()
        peak = held.peak
    del loss
    if recipe.train.gradient_accumulation_steps == 1:  # else those of the batches before are there
        module.zero_grad()
    (seconds,) = timed(lambda: run().backward(), device, 1)
    kept, most = resident()
    module.zero_grad()
    synchronize(device)
    return _Passes(activations, peak, kept, most, seconds)


def _state_bytes(optimizer: Optimizer) -> int:
    """What an optimizer keeps from step to step."""
    return STATES[type(optimizer)] * sum(
        p.nbytes for group in optimizer.param_groups for p in group["params"]
    )


def _step_bytes(optimizer: Optimizer) -> int:
    """What its step needs for a while: AdamW's is fused and needs nothing."""
    if not isinstance(optimizer, Muon):
        return 0
    shapes: dict[torch.Size, int] = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            shapes[p.shape] = shapes.get(p.shape, 0) + p.nbytes
    return ORTHOGONALISED * max(shapes.values())


def _saving_bytes(trainee: Trainee, dtype: str, device: torch.device) -> int:
    """Copies of what is saved in another type than it is trained in; the rest goes straight to the disk."""
    if device.type != "cpu":
        return 0  # they are made in the host's memory
    module, wanted = trainee.module, getattr(torch, dtype)
    adapter = getattr(trainee, "product", "model") == "adapter"
    saved = trained(module).values() if adapter else module.parameters()
    return sum(p.numel() * wanted.itemsize for p in saved if p.dtype != wanted)


def _about_data(trainee: Trainee, recipe: Recipe, packs: list[Batch]) -> dict[str, str]:
    """Lines about the rows; those that only the trainee can tell come last."""
    counts = [trainee.count(pack) for pack in packs]
    micro = recipe.train.gradient_accumulation_steps
    used, budget = sum(pack.tokens for pack in packs), sum(pack.budget for pack in packs)
    found = {
        f"{name} counted a step": f"{micro * sum(c[name] for c in counts) / PACKS:,.1f}" for name in counts[0]
    }
    found["padding"] = f"{1 - used / budget:.1%}"
    return found | (trainee.about_rows(recipe, packs) if hasattr(trainee, "about_rows") else {})


def print_forecast(forecast: Forecast) -> None:
    """A line for everything."""
    from rich.console import Console

    share = forecast.flops / forecast.seconds / forecast.rate
    time = timedelta(seconds=round(forecast.seconds * forecast.steps))
    rows = {
        "machine": forecast.machine,
        "parameters": f"{forecast.trained:,} trained, {forecast.frozen:,} frozen",
        "operations a step": f"{forecast.flops / 1e9:,.1f} GFLOP",
        **({"steps": forecast.counted} if forecast.counted else {}),
        "positions a step": f"{forecast.tokens:,.0f} of {forecast.budget:,.0f}",
        **{f"memory, {part}": f"{size / 1e6:,.1f} MB" for part, size in forecast.memory.items()},
        "memory, process": f"{(forecast.total - forecast.peak) / 1e6:,.1f} MB beside them",
        "memory, at most": f"{forecast.total / 1e6:,.1f} MB",
        "speed": f"{forecast.tokens_per_second:,.0f} positions/s, {share:.0%} of a matrix product's rate",
        "time": f"{time} for {forecast.steps:,} steps; the optimizer, evaluations and saving come on top",
        **forecast.data,
    }
    console, width = Console(highlight=False, markup=False, soft_wrap=True), max(map(len, rows))
    for name, value in rows.items():
        console.print(f"{name:<{width}}  {value}")
