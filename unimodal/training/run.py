"""Everything that changes while training, put together from a recipe and put back from a checkpoint."""

import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from safetensors import SafetensorError
from torch import Tensor, nn

from unimodal.attention.door import use_backend
from unimodal.errors import UserError
from unimodal.training.budget import within_budget
from unimodal.training.checkpoint import (
    check_steps,
    checkpoint_path,
    complete_checkpoints,
    find_checkpoint,
    read_checkpoint,
    save_checkpoint,
    whole_folder,
)
from unimodal.training.config import Recipe
from unimodal.training.ema import Ema
from unimodal.training.guard import Guard
from unimodal.training.held_out import best_so_far
from unimodal.training.log import Log
from unimodal.training.optimizers import (
    build_optimizers,
    build_schedulers,
    load_optimizer_tensors,
    optimizer_tensors,
    trained,
)
from unimodal.training.precision import Precision, choose_precision
from unimodal.training.resumed import check_averages, check_weights, check_world, live_weights
from unimodal.training.row_files import check_rows_are_learned, check_rows_fit
from unimodal.training.signals import StopRequest
from unimodal.training.stream import Stream
from unimodal.training.trainee import Batch, Losses, Trainee


class Forward(nn.Module):
    """A trainee's losses as a module's forward, which is what data-parallel wrappers hook into."""

    def __init__(self, trainee: Trainee, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.module = trainee.module
        self.trainee, self.autocast = trainee, autocast

    def forward(
        self, batch: Batch, generator: torch.Generator, totals: dict[str, float]
    ) -> tuple[Tensor, Losses]:
        """The micro-batch's share of the step's loss, and its parts."""
        with torch.autocast(generator.device.type, self.autocast, enabled=self.autocast is not None):
            losses = self.trainee.losses(batch, generator)
        terms = [losses.weights[n] * s.float() / totals[n] for n, s in losses.sums.items() if totals[n]]
        losses.sums = {name: value.detach() for name, value in losses.sums.items()}
        return torch.stack(terms).sum(), losses


class Run:
    """Everything that changes while training: weights, averages, optimizers, place in the data, step."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator, stop: StopRequest) -> None:
        train, output = recipe.train, recipe.output.dir
        _only_data_parallel(accelerator)
        self.recipe, self.accelerator, self.stop = recipe, accelerator, stop
        checkpoint = find_checkpoint(train.resume, output)
        state, tensors = read_checkpoint(checkpoint) if checkpoint else ({}, {})
        self.step: int = state.get("step", 0)
        if state:
            check_world(state, accelerator.num_processes)
        check_steps(self.step, train.steps)

        seed_everything(train.seed)
        self.trainee: Trainee = recipe.model.build(recipe, checkpoint)
        self.module = self.trainee.module
        check_rows_fit(self.trainee, recipe)
        # Workers are forked before anything here computes, and touch no GPU.
        place = state["data"][accelerator.process_index] if state else None
        rank, world = accelerator.process_index, accelerator.num_processes
        self.stream = Stream(self.trainee, rank, world, recipe.data.workers, place)
        if train.attention != "auto":
            use_backend(train.attention)
        try:
            self._prepare(checkpoint, state, tensors)
        except BaseException:
            self.close()  # workers would outlive a run that never begins
            raise

    def _prepare(self, checkpoint: Path | None, state: dict, tensors: dict[str, dict[str, Tensor]]) -> None:
        """The number of steps, optimizers and averages, as the checkpoint has them if there is one."""
        accelerator = self.accelerator
        self.recipe, self.budget = within_budget(self.recipe, self.trainee, accelerator.num_processes)
        train = self.recipe.train
        check_steps(self.step, train.steps)

        self.precision = _agreed_precision(train.precision, accelerator, state.get("precision"))
        if train.gradient_checkpointing:
            enable_checkpointing(self.module)
        self.forward = accelerator.prepare(Forward(self.trainee, self.precision.autocast))
        self.parameters = list(trained(self.module).values())
        self.optimizers = build_optimizers(self.module, train, self.precision.orthogonalise)
        self.ema = None if train.ema_decay is None else Ema(self.module, train.ema_decay)
        if state:
            self._load(state, tensors)
        self.schedulers = build_schedulers(self.optimizers, train, self.step)
        self.generator = torch.Generator(accelerator.device)
        self.resumed_from = checkpoint
        self.best = best_so_far(self.recipe, self.trainee, state.get("best"))
        self.guard = Guard(train, state.get("guard")) if train.returns else None
        check_rows_are_learned(self.recipe, checkpoint, self.step == train.steps or self.over)

    @property
    def over(self) -> bool:
        """Whether the evaluations say that going on is no use."""
        return self.best is not None and self.best.over(self.recipe.train)

    def weights(self) -> dict[str, Tensor]:
        """Live weights that training changes."""
        return live_weights(self.module)

    def _load(self, state: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> None:
        self._load_weights(state, tensors)
        load_optimizer_tensors(self.module, self.optimizers, tensors["optimizer"])

    def go_back(self) -> int:
        """Be what the newest checkpoint was, but for the place in the data; gives its step."""
        path = complete_checkpoints(self.recipe.output.dir)[-1]
        state, tensors = read_checkpoint(path)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            optimizer.state.clear()
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"]
        self._load(state, tensors)
        self.step = state["step"]
        self.schedulers = build_schedulers(self.optimizers, self.recipe.train, self.step)
        return self.step

    def load_best(self) -> None:
        """Put back the weights and averages of the best evaluation."""
        state, tensors = read_checkpoint(checkpoint_path(self.recipe.output.dir, self.best.step))
        self._load_weights(state, tensors)

    @torch.no_grad()
    def _load_weights(self, state: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> None:
        weights = self.weights()
        check_weights(weights, {name: value.shape for name, value in tensors["weights"].items()})
        for name, value in weights.items():
            value.copy_(tensors["weights"][name])
        if self.ema:
            check_averages(tensors)
            self.ema.load(tensors["ema"], state["ema_updates"])

    def averaged(self) -> AbstractContextManager[None]:
        """A context in which the module has the weights that users get."""
        return self.ema.swapped_in() if self.ema else nullcontext()

    def save(self) -> Path:
        """Write the checkpoint of this step."""
        target = checkpoint_path(self.recipe.output.dir, self.step)
        places = gather_object([self.stream.state])
        if self.accelerator.is_main_process:
            tensors = {
                "weights": self.weights(),
                "optimizer": optimizer_tensors(self.module, self.optimizers),
            }
            state = {"data": places, "precision": self.precision.names}
            if self.ema:
                tensors["ema"] = dict(self.ema.means)
                state["ema_updates"] = self.ema.updates
            spare = None
            if self.best:
                state["best"] = self.best.state()
                spare = self.best.step
            if self.guard:
                state["guard"] = self.guard.state()
            keep = self.recipe.train.save_total_limit
            save_checkpoint(self.recipe.output.dir, self.step, self.save_model, tensors, state, keep, spare)
        self.accelerator.wait_for_everyone()
        return target

    def save_model(self, folder: Path) -> None:
        """The model as users get it, with the recipe that made it."""
        with self.averaged():
            self.trainee.save(folder, self.module)
        (folder / "recipe.yaml").write_text(self.recipe.to_yaml(), encoding="utf-8")

    @property
    def output(self) -> Path:
        """The folder of what is trained: OUTPUT/model, unless the trainee's `product` is something else."""
        return self.recipe.output.dir / getattr(self.trainee, "product", "model")

    def save_final_model(self) -> None:
        """Write the output, replacing an older one only when the new one is whole."""
        if self.accelerator.is_main_process:
            target = self.output
            try:
                with whole_folder(target) as folder:
                    self.save_model(folder)
            except (OSError, SafetensorError) as error:
                step = self.best.step if self.recipe.train.load_best_model_at_end else self.step
                here = checkpoint_path(self.recipe.output.dir, step) / "model"
                raise UserError(
                    f"{target} could not be written ({error}); the same model is {here}."
                ) from error
        self.accelerator.wait_for_everyone()

    def draw_samples(self, log: Log) -> None:
        """A sheet of fixed-seed samples of the averaged weights.  The run goes on if it cannot be written."""
        with self.averaged(), torch.no_grad():
            self.module.eval()
            sheet = self.trainee.samples(self.recipe.train.seed)
            self.module.train()
        if sheet is not None:
            file = self.recipe.output.dir / "samples" / f"step-{self.step:06d}.png"
            with log.spared("a sheet of samples"):
                file.parent.mkdir(parents=True, exist_ok=True)
                try:
                    sheet.save(file)
                except OSError:
                    file.unlink(missing_ok=True)  # half of it
                    raise

    def close(self) -> None:
        """End the data workers, and what the recipe chose for the whole process."""
        self.stream.close()
        if self.recipe.train.attention != "auto":
            use_backend(None)


def seed_everything(seed: int) -> None:
    """Python's, numpy's and PyTorch's own generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def enable_checkpointing(module: nn.Module) -> None:
    """Ask a module to recompute activations; UserError if it cannot."""
    if not hasattr(module, "gradient_checkpointing_enable"):
        raise UserError(f"train.gradient_checkpointing: {type(module).__name__} cannot; set it to false.")
    module.gradient_checkpointing_enable()


def _only_data_parallel(accelerator: Accelerator) -> None:
    kinds = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in kinds:
        raise UserError(
            f"accelerate is set up for {accelerator.distributed_type.value}; training here is data-parallel "
            "only. Start it with `torchrun --nproc-per-node=N` or without a launcher."
        )


def _agreed_precision(asked: str, accelerator: Accelerator, resumed: dict[str, str] | None) -> Precision:
    """The first process's choice: each measures its own device, and all must compute alike."""
    choice = [choose_precision(asked, accelerator.device, resumed)]
    return broadcast_object_list(choice)[0]
