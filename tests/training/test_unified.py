"""The unified trainee through the real loop: tiny model, live shapes rows, everything else as in a recipe."""

import json
import pickle
from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import unimodal
from tests.paths.cases import codec_of
from tests.training.processes import run_two_of
from tests.training.rows import question_rows
from unimodal.attention.door import explain_backend
from unimodal.data.document import Text
from unimodal.errors import UserError
from unimodal.images.discrete import DiscreteCodec
from unimodal.model.config import Writing
from unimodal.model.masked_text import hide
from unimodal.training.config import load_recipe
from unimodal.training.loop import train
from unimodal.training.run import Forward


def test_flash_on_a_cpu_is_said_to_be_no_kernel(recipe, capsys):
    train(recipe("train.attention=flash", "train.steps=1"))
    assert "attention flash, as train.attention says: cpu has no flash kernels" in capsys.readouterr().out


def losses(folder):
    return [entry["loss"] for entry in entries(folder)]


def entries(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_trains_saves_and_loads(recipe, tmp_path, capsys):
    folder = train(recipe("train.sample_steps=4", "model.sampling.steps=2", "train.attention=naive"))
    told = capsys.readouterr().out
    assert "attention naive, as train.attention says: every score is written out" in told
    assert explain_backend("cpu", half=False, pack=True)[0] == "sdpa"
    model = unimodal.load(tmp_path / "run" / "model")
    assert model.generate("draw a red circle", steps=2)[0].size == (64, 64)
    entry = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {
        "loss_text",
        "loss_image",
        "loss_image_bins",
        "tokens_per_second",
        "padding",
        "mfu",
    } <= entry.keys()
    assert entry["padding"] < 0.05
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    assert folder


def test_resume_equals_straight_on(recipe, tmp_path):
    train(recipe())
    train(recipe("train.steps=2", f"output.dir={tmp_path / 'again'}", "train.lr_scheduler_type=constant"))
    train(recipe(f"output.dir={tmp_path / 'straight'}", "train.lr_scheduler_type=constant"))
    train(recipe(f"output.dir={tmp_path / 'again'}", "train.resume=auto", "train.lr_scheduler_type=constant"))
    assert losses(tmp_path / "again") == losses(tmp_path / "straight")
    first, second = (
        unimodal.load(tmp_path / name / "model").model.state_dict() for name in ("again", "straight")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "setting",
    [
        *("times.shift=3", "times.copies=2", "sampling.solver=heun", "sampling.steps=7"),
        "sampling.guidance_rescale=0.5",
    ],
)
@pytest.mark.parametrize("path", ["masked", "next_token"])
def test_settings_that_say_nothing_to_the_path_are_refused(recipe, tmp_path, path, setting):
    codec_of("residual").save(tmp_path / "codec")
    made = recipe(f"model.path={path}", "model.image_size=16", "train.steps=1", f"model.{setting}")
    if path == "masked" and setting == "times.copies=2":
        train(made)
        return
    name = setting.split("=")[0].replace(".", r"\.")
    with pytest.raises(UserError, match=rf"model\.{name} says nothing to the path {path}.* Leave it out"):
        train(made)


def test_options_of_the_path_are_added_to_those_it_has(recipe, tmp_path, caplog):
    path = ["model.path=per_token", "model.path_options={head_width: 24, head_depth: 2}"]
    base = train(recipe(*path, "train.steps=1", f"output.dir={tmp_path / 'base'}"))
    on = [f"model.init_from={base}", "model.codec=null", "train.steps=1"]
    made = recipe(*on, "model.path_options={temperature: 0.9}")
    found = made.model.build(made).module
    assert found.config.path == "per_token"
    assert found.config.path_options == {"head_width": 24, "head_depth": 2, "temperature": 0.9}
    kept = unimodal.load(base).model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in found.state_dict().items())
    assert not caplog.records
    made = recipe(*on, "model.path_options={head_width: 32}")
    made.model.build(made)
    assert "path per_token: path.head." in caplog.text and "begin anew" in caplog.text
    wrong = recipe(*on, "model.path_options={forward: 3}")
    with pytest.raises(UserError, match=r"per_token has no option 'forward' \(did you mean 'forwards'"):
        wrong.model.build(wrong)
    with pytest.raises(UserError, match=r"flow has no option 'forwards'; it has prediction, head_depth"):
        recipe("model.path_options={forwards: 3}")
    asked = ["model.path_options={forwards: 2, head_width: 24, head_depth: 2}"]
    few = train(recipe(*path[:1], *asked, "train.steps=1", f"output.dir={tmp_path / 'few'}"))
    on = [f"model.init_from={few}", "model.codec=null", "model.path=per_token"]
    made = recipe(*on, "model.path_options={order: raster}")
    with pytest.raises(UserError, match=r"forwards: of order random.*'forwards': 2.*null takes one of them"):
        made.model.build(made)
    made = recipe(*on, "model.path_options={order: raster, forwards: null}")
    found = made.model.build(made).module.config.path_options
    assert found == {"order": "raster", "head_width": 24, "head_depth": 2}
    raster = recipe(*path[:1], "model.path_options={order: raster}", "model.times.copies=2")
    with pytest.raises(UserError, match=r"model\.times\.copies says nothing to the path per_token"):
        raster.model.build(raster)


def test_resume_finds_what_is_frozen_as_it_was(recipe, tmp_path):
    codec_of("residual").save(tmp_path / "codec")
    said = ["model.path=masked", "model.image_size=16", "train.steps=2", "train.save_steps=1"]
    train(recipe(*said))
    nudged = deepcopy(codec_of("residual"))
    with torch.no_grad():
        next(nudged.network.parameters()).add_(1e-3)
    nudged.save(tmp_path / "codec")
    with pytest.raises(
        UserError, match=r"codec\.network\.\S+ is frozen, and it has changed since .*step-000002"
    ):
        train(recipe(*said, "train.resume=auto"))


def test_resume_keeps_the_tokenizer_though_the_data_changed(recipe, tmp_path):
    """Trained anew on other rows, the tokenizer would renumber the tokens under the resumed embeddings."""
    train(recipe("train.steps=2"))
    before = (tmp_path / "run" / "model" / "tokenizer.json").read_text()
    train(recipe("train.resume=auto", "data.sources=[{source: shapes, seed: 9, tasks: {text: 1, t2i: 1}}]"))
    assert (tmp_path / "run" / "model" / "tokenizer.json").read_text() == before


def test_drop_table_is_followed(recipe):
    trainee = recipe().model.build(recipe())
    kinds = Counter()
    for number in range(3000):
        document = trainee.rows.document(number)
        if not any(image.trained for image in document.images):
            continue
        dropped = trainee.rows._drop(document, number)
        texts = any(isinstance(part, Text) for part in dropped.parts())
        kinds["text kept" if texts else "text gone"] += 1
    share = kinds["text gone"] / kinds.total()
    assert share == pytest.approx(0.4, abs=0.04)  # text and both


def test_init_from_starts_at_the_saved_weights_and_keeps_its_shape(recipe, tmp_path):
    train(recipe())
    saved = tmp_path / "run" / "model"
    again = recipe(f"model.init_from={saved}", "model.codec=null", f"output.dir={tmp_path / 'tuned'}")
    trainee = again.model.build(again)
    loaded = unimodal.load(saved).model
    assert all(
        torch.equal(a, b) for a, b in zip(trainee.module.state_dict().values(), loaded.state_dict().values())
    )
    planning = recipe(f"model.init_from={saved}", "model.codec=null", "model.writing.plan=7")
    config = planning.model.build(planning).module.config
    assert config == loaded.config.model_copy(update={"writing": Writing(plan=7)})
    other = recipe(f"model.init_from={saved}", "model.codec=null", "model.path=per_token")
    trainee = other.model.build(other)
    assert trainee.module.config == loaded.config.model_copy(update={"path": "per_token", "path_options": {}})
    assert torch.equal(trainee.module.embed_tokens.weight, loaded.embed_tokens.weight)
    masked = recipe(
        f"model.init_from={saved}",
        "model.codec=null",
        "model.text_objective=masked",
        "model.masked_text={block: 4}",
    )
    assert masked.model.build(masked).module.config.masked_text.block == 4
    wrong = recipe(
        f"model.init_from={saved}", "model.path=per_token", "model.lora={rank: 4}", "model.codec=null"
    )
    with pytest.raises(UserError, match=r"model\.path and model\.lora exclude"):
        wrong.model.build(wrong)
    wrong = recipe(f"model.init_from={saved}", "model.hidden_size=64")
    with pytest.raises(UserError, match=r"model\.hidden_size = 64, but .* 32"):
        wrong.model.build(wrong)


def test_missing_codec_and_missing_sources_are_sentences(recipe):
    no_codec = recipe("model.codec=null")
    with pytest.raises(UserError, match=r"model\.codec is missing"):
        no_codec.model.build(no_codec)
    no_rows = recipe("data.sources=[]")
    with pytest.raises(UserError, match=r"data\.sources is empty"):
        no_rows.model.build(no_rows)


def test_codec_is_frozen_unless_trained(recipe):
    frozen = recipe().model.build(recipe())
    assert not any(p.requires_grad for p in frozen.module.codec.parameters())
    batch = next(frozen.batches(None, 0, 1))
    assert set(frozen.count(batch)) == {"text", "image"}


def test_codes_are_not_trained_beside_the_model_that_says_them(recipe, tmp_path):
    codec_of("vq").save(tmp_path / "coded")
    given = ("model.path=masked", f"model.codec={tmp_path / 'coded'}", "model.train_codec=true")
    with pytest.raises(UserError, match="train_codec is for codecs without codes"):
        recipe(*given).model.build(recipe(*given))


def test_two_packs_of_a_step_and_two_processes_give_the_same(recipe, tmp_path):
    """The model itself, pictures read and nothing drawn, so that no noise differs: losses, norms, weights."""
    drop = "model.drop={text: 0.0, image: 0.0, both: 0.0}"
    said = [question_rows(tmp_path), drop, "train.steps=3", "train.ema_decay=null", "train.save_steps=3"]
    one = train(recipe(*said, "train.gradient_accumulation_steps=2", f"output.dir={tmp_path / 'one'}"))
    two = tmp_path / "two"
    words = run_two_of(lambda: recipe(*said, f"output.dir={two}"), two)
    assert "Done after step 3" in words[0], words
    first, second = (unimodal.load(folder).model.state_dict() for folder in (one, two / "model"))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=2e-5, rtol=0)
    for a, b in zip(*map(entries, (tmp_path / "one", two)), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_accumulated_micro_batches_weigh_by_tokens(recipe):
    """The gradient that a step of two packs has is that of their joint sums over their joint counts."""
    trainee = recipe().model.build(recipe())
    stream = trainee.batches(None, 0, 1)
    packs = [next(stream) for _ in range(2)]
    counts = [trainee.count(pack) for pack in packs]
    total = {name: sum(count[name] for count in counts) for name in counts[0]}
    assert total["text"] > 0
    assert total["image"] > 0
    both: dict[str, Tensor] = {}
    forward = Forward(trainee, None)
    for seed, pack in enumerate(packs):
        forward(pack, torch.Generator().manual_seed(seed), total)[0].backward()
    for seed, pack in enumerate(packs):
        losses = trainee.losses(pack, torch.Generator().manual_seed(seed))
        for name, value in losses.sums.items():
            both[name] = both.get(name, 0) + value
    weights = losses.weights
    together = sum(weights[name] * both[name] / total[name] for name in both)
    trained = [p for p in trainee.module.parameters() if p.requires_grad]
    for p, expected in zip(trained, torch.autograd.grad(together, trained), strict=True):
        torch.testing.assert_close(p.grad, expected, atol=1e-5, rtol=1e-4)


def coded(tmp_path, kind, **quantizer):
    """A random codec with codes, of 8 pixels a cell."""
    network = {"in_channels": 48, "latent_channels": 4}
    for side in ("encoder", "decoder"):
        network |= {f"{side}_block_out_channels": (8, 8), f"{side}_layers_per_block": (1, 1)}
    codec = DiscreteCodec({"_class_name": "AutoencoderDC"} | network, {"kind": kind, **quantizer}, fold=4)
    codec.save(tmp_path / "coded")
    return f"model.codec={tmp_path / 'coded'}"


PATHS = {
    "flow": ["model.path_options.head_depth=2"],
    "per_token": ["model.path_options={head_width: 24, head_depth: 2, noises: 3}"],
    "next_token": [],
    "masked": [],
    "next_scale": [],
}


@pytest.mark.parametrize("path", PATHS)
def test_flops_are_close_to_what_torch_counts(recipe, tmp_path, path):
    from torch.utils.flop_counter import FlopCounterMode

    from unimodal.attention.door import use_backend

    said = [f"model.path={path}", *PATHS[path]]
    if path == "next_scale":
        said.append(coded(tmp_path, "multi_scale", codes=600, scales=[1, 2]))
    elif path in ("next_token", "masked"):
        said.append(coded(tmp_path, "vq", codes=600))
    settings = recipe(*said, "data.tokens=1024")
    trainee = settings.model.build(settings)
    batch = next(trainee.batches(None, 0, 1))
    predicted = trainee.flops(batch)
    use_backend("naive")
    with FlopCounterMode(display=False) as counter:
        sums = trainee.losses(batch, torch.Generator().manual_seed(0)).sums
        (sums["text"] + sums["image"]).backward()
    with FlopCounterMode(display=False) as codec, torch.no_grad():
        trainee.module.encoded(batch.pixels)
    use_backend(None)
    counted, spent = (c.get_flop_counts().get("Global", {}) for c in (counter, codec))
    # What the codec spends is not counted.
    counted = {op: value - spent.get(op, 0) for op, value in counted.items()}
    dense = sum(value for op, value in counted.items() if "bmm" in str(op))
    # The oracle computes all pairs of the pack; those that may look are about half of each document's own.
    allowed = sum(length**2 for length in batch.lengths) / 2 / batch.budget**2
    expected = sum(counted.values()) - dense + dense * allowed
    assert predicted == pytest.approx(expected, rel=0.15)


def test_experts_cost_what_their_positions_do(recipe):
    """Frozen text weights need no gradient: two operations less a weight and position of text."""
    mot = ["model.experts=mot", "data.tokens=1024"]
    found = {}
    for name, said in {"shared": mot[1:], "both": mot, "one": [*mot, "model.freeze=[text_expert]"]}.items():
        made = recipe(*said)
        trainee = made.model.build(made)
        batch = next(trainee.batches(None, 0, 1))
        found[name] = trainee.flops(batch)
    assert found["both"] == found["shared"]
    text = batch.tokens - sum(span.length for span in batch.images)
    assert 0 < text != batch.tokens - text
    expert = sum(p.numel() for layer in trainee.module.decoder.layers for p in layer.experts[0].parameters())
    assert found["both"] - found["one"] == 2 * expert * text


def test_masked_text_costs_what_it_hides(recipe):
    said = ["model.text_objective=masked", "model.masked_text.block=4", "data.tokens=1024"]
    masked, plain = (r.model.build(r) for r in (recipe(*said), recipe()))
    batch = next(masked.batches(None, 0, 1))
    generator = torch.Generator().manual_seed(0)
    hidden = [len(hide(batch.blocks, generator).at) for _ in range(300)]
    spared = int((batch.labels >= 0).sum()) - sum(hidden) / 300
    assert plain.flops(batch) - masked.flops(batch) == pytest.approx(6 * 300 * 32 * spared, rel=0.05)


def test_what_lays_rows_out_travels_without_weights(recipe):
    """As a background process may get it: by value, and small."""
    settings = recipe()
    trainee = settings.model.build(settings)
    again = replace(trainee.rows, target=pickle.loads(pickle.dumps(trainee.rows.target)))
    assert not again.target.state_dict()
    assert list(trainee.module.path.parameters())  # those of the path itself are still there
    for number in range(4):
        first, second = trainee.rows(number), again(number)
        assert first.ids.tolist() == second.ids.tolist()
        assert first.images == second.images


def test_a_budget_of_operations_says_the_steps(recipe, tmp_path):
    settings = recipe("train.steps=null", "train.flops=1.0e+9", "train.logging_steps=1")
    trainee = settings.model.build(settings)
    batches = trainee.batches(None, 0, 1)
    a_step = sum(trainee.flops(next(batches)) for _ in range(8)) / 8
    train(settings)
    entries = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert len(entries) == int(1e9 / a_step) > 2
    told = load_recipe(tmp_path / "run" / "recipe.yaml").train
    assert (told.steps, told.flops) == (len(entries), None)
    with pytest.raises(UserError, match=r"pays for 0 steps"):
        train(recipe("train.steps=null", "train.flops=10", f"output.dir={tmp_path / 'poor'}"))
    with pytest.raises(UserError, match="either `steps` or `flops`"):
        recipe("train.flops=1.0e+9")


def test_a_frozen_text_expert_keeps_every_bit(recipe, tmp_path):
    """Two steps of the whole loop, decay and averages included, from a model of one expert."""
    train(recipe())
    saved = tmp_path / "run" / "model"
    begun = ["model.codec=null", f"model.init_from={saved}", "model.experts=mot", "train.weight_decay=0.1"]
    frozen = "model.freeze=[text_expert, embeddings]"
    train(recipe(*begun, frozen, f"output.dir={tmp_path / 'fused'}", "train.steps=2"))
    before = unimodal.load(saved).model.state_dict()
    after = unimodal.load(tmp_path / "fused" / "model").model.state_dict()
    for name, weight in after.items():
        kept = name.startswith(("embed_tokens", "decoder.norm", "codec")) or ".experts.0." in name
        source = before[name.replace(".experts.1.", ".experts.0.")]
        assert torch.equal(weight, source) == kept, name
    refused = recipe("model.freeze=[text_expert]")
    with pytest.raises(UserError, match=r"model\.freeze.*experts=mot"):
        refused.model.build(refused)


def test_a_mixture_begins_as_the_model_it_is_made_of(recipe, tmp_path):
    train(recipe())
    saved = tmp_path / "run" / "model"
    again = recipe("model.codec=null", f"model.init_from={saved}", "model.experts=mot")
    mixture, plain = again.model.build(again), unimodal.load(saved).model
    batch = next(mixture.batches(None, 0, 1))
    with torch.no_grad():
        first, second = (m(batch, torch.Generator().manual_seed(0)) for m in (mixture.module, plain))
    torch.testing.assert_close(first.text, second.text)
    torch.testing.assert_close(first.image, second.image)
    new = recipe("model.experts=mot").model.build(recipe("model.experts=mot")).module
    for block in new.decoder.layers:
        text, image = (expert.state_dict() for expert in block.experts)
        assert all(torch.equal(weight, image[name]) for name, weight in text.items())


def test_not_a_number_names_the_rows_of_the_pack(recipe, monkeypatch):
    from unimodal.training.unified_trainee import UnifiedTrainee

    plain = UnifiedTrainee.losses

    def poisoned(self, batch, generator):
        losses = plain(self, batch, generator)
        losses.sums["text"] = losses.sums["text"] * float("nan")
        return losses

    monkeypatch.setattr(UnifiedTrainee, "losses", poisoned)
    with pytest.raises(UserError, match=r"Samples of the batch: shapes/train:\d+, shapes/train:\d+, "):
        train(recipe())
