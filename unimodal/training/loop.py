"""The training loop: one for every trainee.

A step draws all its micro-batches first, so that every loss is divided by what the whole step counts,
over micro-steps and processes; how the step is cut into micro-batches then changes nothing.  All noise
of a step is seeded by its number, so a checkpoint needs no random state and a resumed run repeats it.
"""

import math
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

import torch
from accelerate import DistributedDataParallelKwargs
from accelerate.utils import gather_object

from unimodal.attention.door import explain_named
from unimodal.errors import UserError
from unimodal.training.allocations import bound_primitives
from unimodal.training.checkpoint import checkpoint_path, complete_checkpoints
from unimodal.training.config import Recipe, changes
from unimodal.training.guard import Derailed
from unimodal.training.held_out import evaluate
from unimodal.training.log import Log
from unimodal.training.processes import joined, noise_seed, summed
from unimodal.training.row_files import check_rows
from unimodal.training.run import Run
from unimodal.training.signals import StopRequest
from unimodal.training.tally import Tally, merge_bins
from unimodal.training.throughput import Meter, memory_gb
from unimodal.training.trainee import Batch, Losses


def _total_counts(run: Run, batches: list[Batch]) -> dict[str, float]:
    counts = [run.trainee.count(batch) for batch in batches]
    names = sorted(counts[0])
    mine = [float(sum(count[name] for count in counts)) for name in names]
    return dict(zip(names, summed(mine, run.accelerator)))


def _refuse_unless_finite(run: Run, finite: bool, losses: list[Losses], batches: list[Batch]) -> None:
    """Raise an error that names the samples if the step's loss or gradient is not a number.

    In a guarded run Derailed, which the loop catches, else UserError.
    """
    if finite:
        return
    everyone = list(chain.from_iterable(batch.sample_ids for batch in batches))
    bad = [
        batch.sample_ids
        for batch, loss in zip(batches, losses)
        if not all(math.isfinite(value.item()) for value in loss.sums.values())
    ]
    with_bad_loss = gather_object(list(chain.from_iterable(bad)))
    ids = with_bad_loss or gather_object(everyone)
    what = f"The {'loss' if with_bad_loss else 'gradient'} of step {run.step + 1} is not finite"
    samples = f"Samples of the batch: {', '.join(map(str, ids))}."
    if run.guard:
        raise Derailed(f"{what}. {samples}")
    kept = complete_checkpoints(run.recipe.output.dir)
    last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint before it"
    raise UserError(
        f"{what}; the weights were not touched and {last}. {samples} Look at them with "
        "`unimodal data preview`; if they are sound, lower train.learning_rate, lengthen train.warmup_steps "
        "or use train.precision=fp32."
    )


def _draw(run: Run, saved: int) -> list[Batch]:
    """The micro-batches of the next step; if a row is wrong, nothing that was learned before it is lost."""
    before = run.stream.state
    try:
        return [next(run.stream) for _ in range(run.recipe.train.gradient_accumulation_steps)]
    except UserError as error:
        if run.step == saved or run.accelerator.num_processes > 1:  # one process cannot save for all
            raise
        run.stream.state = before
        run.save()
        raise UserError(
            f"{error}\nStep {run.step} was saved before: mend the row in its place, and go on with "
            "train.resume=auto."
        ) from error


def _optimizer_step(run: Run, batches: list[Batch], tally: Tally, meter: Meter) -> float:
    """Forward, backward, update.  Returns the norm of the gradient before clipping."""
    train, accelerator = run.recipe.train, run.accelerator
    totals = _total_counts(run, batches)
    flops = sum(map(run.trainee.flops, batches))  # if it has to try, then while no gradients take memory
    parts: list[Losses] = []
    rank = accelerator.process_index
    torch.manual_seed(noise_seed(train.seed, run.step, rank))  # for dropout, if a model has any
    for micro, batch in enumerate(batches):
        run.generator.manual_seed(noise_seed(train.seed, run.step, micro, rank))
        last = micro == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(run.forward):
            loss, losses = run.forward(batch, run.generator, totals)
            # Data parallelism averages gradients over processes, but the loss is already a share of the sum.
            (loss * accelerator.num_processes).backward()
        tally.add_bins(losses.bins)
        parts.append(losses)

    parameters = [p for p in run.parameters if p.grad is not None]
    limit = math.inf if train.max_grad_norm is None else train.max_grad_norm
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
    names = list(parts[0].sums)
    mine = torch.stack([sum(part.sums[name] for part in parts).float() for name in names] + [norm.float()])
    rows = sorted(getattr(batches[0], "rows", {}))
    work = [
        sum(b.tokens for b in batches),
        sum(b.budget for b in batches),
        flops,
        *(sum(batch.rows[name] for batch in batches) for name in rows),
    ]
    everyones = summed([*mine.tolist(), *work], accelerator)
    sums, work = dict(zip(names, everyones)), everyones[-len(work) :]
    _refuse_unless_finite(run, all(map(math.isfinite, everyones[: -len(work)])), parts, batches)
    weights = parts[0].weights
    if run.guard:
        run.guard.see(run.step + 1, sum(weights[n] * s / totals[n] for n, s in sums.items() if totals[n]))

    for optimizer, scheduler in zip(run.optimizers, run.schedulers):
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    if run.ema:
        run.ema.update()
    run.step += 1
    tally.add(sums, totals, weights)
    tally.add_rows(dict(zip(rows, work[3:])))
    meter.add(*work[:3])
    return mine[-1].item()


def _log_step(run: Run, log: Log, tally: Tally, meter: Meter, rate: float, norm: float) -> None:
    bins = merge_bins(gather_object([tally.bin_lists()]))
    rates = meter.read()
    entry = {"step": run.step, **tally.losses(bins), "learning_rate": rate, "grad_norm": norm, **rates}
    entry |= {"rows": dict(tally.rows)} if tally.rows else {}
    entry |= {"seconds": log.earlier_seconds + meter.seconds, "memory_gb": memory_gb(run.accelerator.device)}
    log.write(entry, meter.to_go(run.recipe.train.steps - run.step))


def _asked_to_stop(run: Run) -> bool:
    """Whether any process got a signal; all of them agree."""
    return summed([float(run.stop.asked is not None)], run.accelerator)[0] > 0


def _judge(run: Run, log: Log, meter: Meter) -> bool:
    """Evaluate on the held-out rows; gives whether it is the best so far."""
    with meter.pause():
        metrics = evaluate(run)
    better = run.best.see(run.step, metrics)
    log.evaluation({"step": run.step, **metrics, "seconds": log.earlier_seconds + meter.seconds}, better)
    return better


def _steps(run: Run, log: Log) -> Path:
    """Train until the last step, a signal, or no better evaluation; returns the newest checkpoint."""
    train = run.recipe.train
    meter, tally = Meter(run.precision.peak * run.accelerator.num_processes), Tally()
    saved, stopped = run.step, False
    run.module.train()
    if run.best and run.best.step is None:
        _judge(run, log, meter)  # what there is to improve upon
        with meter.pause():
            run.save()
    elif run.guard and not complete_checkpoints(run.recipe.output.dir):
        with meter.pause():
            run.save()  # what there is to go back to
    while run.step < train.steps and not stopped and not run.over:
        rate = run.optimizers[0].param_groups[0]["lr"]
        batches = _draw(run, saved)
        try:
            norm = _optimizer_step(run, batches, tally, meter)
        except Derailed as why:
            run.guard.count(why)
            reached = run.step + 1
            saved, tally = run.go_back(), Tally()
            run.guard.lost += reached - saved
            log.go_back(run.step)
            log.say(f"{why} Back to step {run.step}, and on with other rows (return {run.guard.returns}).")
            continue
        log.tick(run.step)
        final = run.step == train.steps
        if run.step % train.logging_steps == 0 or final:
            _log_step(run, log, tally, meter, rate, norm)
            tally = Tally()
        stopped = _asked_to_stop(run)
        due = run.best and (run.step % train.eval_steps == 0 or final)
        better = due and _judge(run, log, meter)
        with meter.pause():
            if train.sample_steps and (run.step % train.sample_steps == 0 or final):
                if run.accelerator.is_main_process:
                    run.draw_samples(log)
                run.accelerator.wait_for_everyone()
            if run.step % train.save_steps == 0 or final or stopped or better or run.over:
                run.save()
                saved = run.step
    return checkpoint_path(run.recipe.output.dir, saved)


def train(recipe: Recipe) -> Path:
    """Train what the recipe says and return its folder, when all steps are done or none is better any more:
    OUTPUT/model, or for an adapter OUTPUT/adapter.

    Stopped by SIGINT or SIGTERM it returns the model folder of the checkpoint it wrote.  Raises UserError
    for bad input and for a loss that is not finite.
    """
    bound_primitives()
    if recipe.train.threads is not None:
        torch.set_num_threads(recipe.train.threads)
    # A batch of text alone leaves the image parts without gradients, hence unused parameters.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = joined(parallel)
    check_rows(recipe)
    with StopRequest() as stop:
        run = Run(recipe, accelerator, stop)
        recipe = run.recipe  # its steps are counted now, if it gave operations
        try:
            with _begun(run) as log:
                _introduce(run, log)
                last = _steps(run, log)
                if run.step < recipe.train.steps and not run.over:
                    log.say(
                        f"Stopped by {stop.asked or 'a signal'} after step {run.step}; saved {last}. "
                        "Go on with train.resume=auto."
                    )
                    return last / "model"
                if run.over:
                    log.say(
                        f"Stopped early after step {run.step}: for {run.best.stale} evaluations "
                        f"{run.best.metric} has not been lower than at step {run.best.step} "
                        f"({run.best.value:.4f})."
                    )
                if recipe.train.load_best_model_at_end:
                    run.load_best()
                    log.say(f"The model is that of step {run.best.step}, the best on held-out rows.")
                run.save_final_model()
                log.say(f"Done after step {run.step}: {run.output}")
                if hint := getattr(run.trainee, "hint", None):
                    log.say(hint(run.output))
                return run.output
        finally:
            run.close()


def _begun(run: Run) -> Log:
    """The folder of the run with its recipe and its log.  Raises UserError if they cannot be written."""
    recipe, main = run.recipe, run.accelerator.is_main_process
    output = recipe.output.dir
    try:
        output.mkdir(parents=True, exist_ok=True)
        if main:
            (output / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        return Log(output, recipe.train.steps, run.step, recipe.output.tensorboard, main)
    except OSError as error:
        raise UserError(
            f"output.dir {output} could not be written ({error}); nothing was trained. Make room there, or "
            "give another output.dir."
        ) from error


def _introduce(run: Run, log: Log) -> None:
    """Print the recipe and every choice that was made for the user."""
    log.recipe(run.recipe.to_yaml())
    count = sum(p.numel() for p in run.parameters)
    frozen = sum(p.numel() for p in run.module.parameters()) - count
    log.say(f"{count / 1e6:.2f} M trained parameters, {frozen / 1e6:.2f} M frozen")
    log.say(f"{run.accelerator.num_processes} process(es) on {run.accelerator.device.type}")
    if run.budget:
        log.say(run.budget)
    for sentence in run.trainee.about() if hasattr(run.trainee, "about") else ():
        log.say(sentence)
    log.say(f"precision {run.precision.reason}")
    if hasattr(run.trainee, "attention"):
        asked, device = run.recipe.train.attention, run.accelerator.device.type
        if asked == "auto":
            log.say(f"attention {run.trainee.attention(run.precision.autocast is not None)}")
        else:
            log.say(f"attention {asked}, as train.attention says: {explain_named(asked, device)}")
    if run.recipe.train.optimizer == "muon":
        log.say(f"muon orthogonalises in {run.precision.names['orthogonalise']}")
    if run.resumed_from:
        log.say(f"resumed from {run.resumed_from}, after step {run.step} of {run.recipe.train.steps}")
        before = (run.resumed_from / "model" / "recipe.yaml").read_text(encoding="utf-8")
        for change in changes(before, run.recipe.to_yaml()):
            log.say(f"changed since the checkpoint: {change}")
        if run.best and run.best.step is None:
            log.say(
                "there is no best checkpoint of this metric yet, by these held-out rows, noise and loss "
                "weights: it is looked for from here on"
            )
    elif run.recipe.train.resume == "auto":
        log.say(f"train.resume=auto found no checkpoint in {run.recipe.output.dir}: starting anew")
