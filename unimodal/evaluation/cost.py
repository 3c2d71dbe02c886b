"""What a picture costs: forwards, operations, seconds.

A forward is one look at a picture's positions, be it a solver step, a round of unmasking, a scale or a token,
so that the figures of all paths can stand side by side.  Operations and seconds are those of the whole answer
to a prompt; of a model that says something before its picture, those of drawing alone stand beside them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from unimodal.attention.door import computed_by
from unimodal.evaluation.scores import Score, average
from unimodal.generation.verbs import Unimodal
from unimodal.training.throughput import timed

PROMPT = "draw a red circle left of a blue square"
ROWS = (1, 16)  # pictures that are drawn together


def judge_cost(model: Unimodal) -> dict[str, Score]:
    """Parameters; forwards and billions of operations a picture; seconds a picture, alone and of sixteen.

    drawing_gflop, drawing_seconds_1 and drawing_seconds_16 leave out what the model says before its picture,
    and are there if it does (`model.writing.plan`).
    """
    scores = {
        "cost/parameters": average([model.size]),
        "cost/forwards": average([forwards_per_picture(model)]),
        **_answer(model, "cost/"),
    }
    if model.writing.plan:
        with saying_nothing(model):
            scores |= _answer(model, "cost/drawing_")
    return scores


def _answer(model: Unimodal, name: str) -> dict[str, Score]:
    scores = {f"{name}gflop": average([flops_per_picture(model) / 1e9])}
    for rows in ROWS:
        scores[f"{name}seconds_{rows}"] = average(s / rows for s in seconds_to_draw(model, rows))
    return scores


@contextmanager
def saying_nothing(model: Unimodal) -> Iterator[None]:
    """Within it the model begins its picture at once."""
    config = model.model.config
    if hasattr(config, "plans"):  # of an external model, whose reader writes
        silent = {"plans": False}
    else:
        silent = {"writing": config.writing.model_copy(update={"plan": 0})}
    model.model.config = config.model_copy(update=silent)
    try:
        yield
    finally:
        model.model.config = config


def forwards_per_picture(model: Unimodal) -> int:
    """How often the decoder looks at a picture while it draws it; guidance's branches share a look."""
    looks, plain = [], model.model.look

    def counted(*given, **named):
        looks.append(named.get("image", True))  # text by masked prediction looks too
        return plain(*given, **named)

    model.model.look = counted
    try:
        model.generate(PROMPT)
    finally:
        del model.model.look
    return sum(looks)


def flops_per_picture(model: Unimodal) -> int:
    """Floating point operations of one picture from its prompt on, guidance and codec included.

    Attention is counted as the oracle computes it, since torch does not count every fused kernel: over a
    cache that is all keys there are, none of them in vain.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Anywhere()
    with computed_by("naive"), sdpa_kernel(SDPBackend.MATH), counter:
        model.generate(PROMPT)
    return counter.get_total_flops()


class _Anywhere(ModuleTracker):
    """Counts are wanted in all, not by module: its hooks want gradients, which drawing has none of."""

    def __enter__(self) -> "_Anywhere":
        return self

    def __exit__(self, *args: object) -> None:
        pass


def seconds_to_draw(model: Unimodal, rows: int) -> list[float]:
    """Seconds in which so many pictures are drawn together, measured a few times."""
    return timed(lambda: model.generate([PROMPT] * rows), model.model.device)
