"""How fast a model trains and generates here: the figures behind `unimodal bench`.

Everything is measured in one run on one machine, the matrix product rate first, so that utilisation
compares like with like.  Medians over repeats; nothing is asserted, a reader judges.
"""

import statistics

import torch

from unimodal.data.document import Document
from unimodal.data.rows import parse_row
from unimodal.errors import UserError
from unimodal.evaluation.cost import (
    PROMPT,
    flops_per_picture,
    forwards_per_picture,
    saying_nothing,
    seconds_to_draw,
)
from unimodal.generation.context import read_documents, read_tokens
from unimodal.generation.load import load
from unimodal.generation.verbs import Unimodal
from unimodal.model.unified import UnifiedModel
from unimodal.training.config import DataSection
from unimodal.training.throughput import gemm_rate, timed
from unimodal.training.unified import mixture_of
from unimodal.training.unified_trainee import UnifiedTrainee

REPEATS = 5  # of training packs


def bench(name: str = "shapes-base", tokens: int = 4096) -> dict[str, float]:
    """Measure and print a table; returns {measure: value} in the units its key ends with."""
    model = load(name)
    if not isinstance(model.model, UnifiedModel):
        raise UserError(f"{name} is an external model; bench measures models that draw inside the decoder.")
    figures = gemm_figures(model) | training_figures(model, tokens) | generation_figures(model)
    print_figures(name, figures)
    return figures


def gemm_figures(model: Unimodal) -> dict[str, float]:
    """Rate of a large square matrix product, in GFLOP/s."""
    device = model.model.device
    return {
        f"gemm {kind}, GFLOP/s": gemm_rate(device, dtype) / 1e9
        for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }


def training_figures(model: Unimodal, tokens: int) -> dict[str, float]:
    """Forward and backward, without the optimizer, on packs of fresh shapes rows, in fp32 and in bf16."""
    data = DataSection(sources=[{"source": "shapes"}], tokens=tokens)
    trainee = UnifiedTrainee(
        model.model, model.tokenizer, mixture_of(data), data, {"text": 1.0, "image": 1.0}, train_codec=False
    )
    stream = trainee.batches(None, 0, 1)
    packs = [next(stream) for _ in range(REPEATS)]
    device = model.model.device
    figures = {"packing, % full": 100 * statistics.mean(pack.tokens / pack.budget for pack in packs)}
    model.model.train()
    for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):

        def step(pack, dtype=dtype):
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                losses = trainee.losses(pack, torch.Generator(device).manual_seed(0))
            (losses.sums["text"] / 1000 + losses.sums["image"] / 1000).backward()
            model.model.zero_grad()

        step(packs[0])
        seconds = [timed(lambda pack=pack: step(pack), device, 1)[0] for pack in packs]
        rate = statistics.median(trainee.flops(pack) / s for pack, s in zip(packs, seconds))
        speed = statistics.median(pack.tokens / s for pack, s in zip(packs, seconds))
        figures[f"training {kind}, tokens/s"] = speed
        figures[f"training {kind}, GFLOP/s"] = rate / 1e9
        figures[f"training {kind}, % of the GEMM rate"] = 100 * rate / gemm_rate(device, dtype)
    model.model.eval()
    return figures


@torch.inference_mode()
def generation_figures(model: Unimodal) -> dict[str, float]:
    """Prefill, decoding, and whole pictures (with what is said before them), at batch 1 and 16.

    A forward is one look at a picture's positions, be it a solver step, a round of unmasking, a scale or a
    token, so the figures of all paths can be read side by side.
    """
    device, tokenizer = model.model.device, model.tokenizer
    document: Document = parse_row(
        {"messages": [{"role": "user", "content": PROMPT}]}, "bench", open_turn=True
    )
    forwards = forwards_per_picture(model)
    figures = {
        "parameters, M": model.size / 1e6,
        "forwards a picture": float(forwards),
        "picture, GFLOP": flops_per_picture(model) / 1e9,
    }
    for rows in (1, 16):
        asked = [document] * rows
        context = read_documents(model.model, tokenizer, asked)
        length = int(context.cache.length[0])
        seconds = statistics.median(
            timed(lambda asked=asked: read_documents(model.model, tokenizer, asked), device)
        )
        figures[f"prefill, batch {rows}, tokens/s"] = rows * length / seconds
        token, on = (
            torch.zeros(rows, dtype=torch.long, device=device),
            torch.ones(rows, dtype=torch.bool, device=device),
        )
        seconds = statistics.median(
            timed(lambda c=context, t=token, on=on: read_tokens(model.model, c, t, on), device)
        )
        figures[f"decode, batch {rows}, tokens/s"] = rows / seconds
        seconds = statistics.median(seconds_to_draw(model, rows))
        figures[f"picture, batch {rows}, s a picture"] = seconds / rows
        figures[f"picture, batch {rows}, pictures/s"] = rows / seconds
        with saying_nothing(model):
            seconds = statistics.median(seconds_to_draw(model, rows))
        figures[f"denoise, batch {rows}, ms a forward, reading and decoding shared out"] = (
            1000 * seconds / forwards
        )
    return figures


def print_figures(name: str, figures: dict[str, float]) -> None:
    """A table, with the machine's threads in its title."""
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "value", title=f"{name} on {torch.get_num_threads()} threads")
    table.columns[1].justify = "right"
    for measure, value in figures.items():
        table.add_row(measure, f"{value:,.3f}" if value < 10 else f"{value:,.1f}")
    Console().print(table)
