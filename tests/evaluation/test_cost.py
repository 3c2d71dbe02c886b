"""What a picture costs: counts against what each path says of itself."""

import itertools
import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.documents import tokenizer
from tests.paths.cases import CASES
from unimodal.evaluation.bench import generation_figures
from unimodal.evaluation.cost import flops_per_picture, forwards_per_picture, judge_cost
from unimodal.evaluation.markdown import table
from unimodal.evaluation.report import Report
from unimodal.generation.verbs import Unimodal

# Of pictures of 2 x 2 cells and 3 solver steps.
FORWARDS = {
    "flow on pixels": 3,
    "per_token on pixels": 4,  # no more sets than positions
    "per_token, raster": 4,
    "next_token on codes": 4,
    "next_token on residuals, strayed": 4,  # both codes of a cell at one position
    "masked on codes": 4,  # no more sets than codes
    "next_scale": 2,
    "masked, text as well": 4,  # the words that it says before are not looks at a picture
}


@pytest.mark.parametrize("name", FORWARDS)
def test_forwards_are_looks(name):
    for plan in (0, 16):
        model = Unimodal(CASES[name].model(writing={"plan": plan}), tokenizer())
        assert forwards_per_picture(model) == FORWARDS[name]
        assert "look" not in vars(model.model)


def test_what_is_said_before_a_picture_is_told_apart():
    """The cost of drawing is that of the same model without a plan."""
    chatty, silent = (
        Unimodal(CASES["flow on pixels"].model(writing={"plan": plan}), tokenizer()) for plan in (16, 0)
    )
    told, plain = judge_cost(chatty), judge_cost(silent)
    assert told["cost/drawing_gflop"].value == plain["cost/gflop"].value < told["cost/gflop"].value
    assert set(plain) == {name for name in told if "drawing" not in name}
    assert chatty.writing.plan == 16


def test_operations_grow_by_a_look_a_step():
    model = Unimodal(CASES["flow on pixels"].model(), tokenizer())
    found = []
    for steps in (1, 2, 4):
        model.model.path.sampling = model.config.sampling.model_copy(update={"steps": steps})
        found.append(flops_per_picture(model))
    assert found[0] > 0
    assert found[2] - found[1] == 2 * (found[1] - found[0]) > 0


def test_attention_of_a_diffusers_denoiser_counts():
    """Whatever kernel computes it: one more layer costs its products, which torch sees, and attention."""
    from tests.denoisers.test_diffusers import CONFIGS
    from tests.external.make import external

    found = {}
    for depth, backend in itertools.product((1, 2), (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION)):
        shape = CONFIGS["sd3"] | {"num_layers": depth, "in_channels": 48, "out_channels": 48}
        denoiser = {"kind": "sd3", "options": {"config": shape}}
        model = external(denoiser=denoiser, reference="vlm", sampling={"steps": 1})
        with sdpa_kernel(backend):
            found[depth, backend] = flops_per_picture(model)
    assert found[1, SDPBackend.MATH] == found[1, SDPBackend.FLASH_ATTENTION] < found[2, SDPBackend.MATH]


def test_costs_stand_in_a_table_beside_each_other():
    reports = {}
    for name in ("flow on pixels", "next_scale"):
        model = Unimodal(CASES[name].model(), tokenizer())
        report = Report(name, "shapes", "val", 0, judge_cost(model))
        reports[name] = json.loads(json.dumps(report.as_dict()))
    lines = table(reports).splitlines()
    assert lines[0] == "| score | `flow on pixels` | `next_scale` |"
    assert "| `cost/forwards` | 3 | 2 |" in lines
    parameters = sum(p.numel() for p in CASES["flow on pixels"].model().parameters())
    assert f"| `cost/parameters` | {parameters:,}" in "\n".join(lines)
    assert any(line.startswith("| `cost/seconds_16`") for line in lines)


def test_bench_measures_pictures_of_a_path_that_takes_no_steps():
    figures = generation_figures(Unimodal(CASES["next_scale"].model(), tokenizer()))
    assert figures["forwards a picture"] == 2
    assert all(value > 0 for value in figures.values())
    assert torch.is_inference_mode_enabled() is False


def test_forwards_of_an_external_model_are_its_denoisers():
    from tests.external.make import external

    for branches in (1.0, 2.0):
        sampling = {"steps": 3, "guidance": branches, "image_guidance": 1.0}
        model = external(sampling=sampling)
        assert forwards_per_picture(model) == 3
        assert "look" not in vars(model.model)
    assert flops_per_picture(model) > flops_per_picture(external(sampling=sampling | {"steps": 1})) > 0
