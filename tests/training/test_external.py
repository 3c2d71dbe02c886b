"""External models through the real loop: live shapes rows, a tiny reader, everything else as in a recipe."""

import itertools
import json
import re
from collections import Counter

import pytest
import torch
import yaml

import unimodal
import unimodal.training.external_trainee as external_trainee
from tests.documents import tokenizer
from tests.external.make import CONNECTORS as EXTERNALS
from tests.models import tiny_model
from unimodal.attention import naive
from unimodal.commands.recipes import RECIPES
from unimodal.data.document import Document, Text, Turn
from unimodal.errors import UserError
from unimodal.external.folder import save_external
from unimodal.external.model import ExternalModel
from unimodal.external.prompts import plan_of
from unimodal.images.codec import PixelPatches
from unimodal.model.config import Writing
from unimodal.model.folder import save_model
from unimodal.training.config import load_recipe
from unimodal.training.external import PARTS
from unimodal.training.loop import train

QUERIES = {"kind": "queries", "options": {"count": 4, "width": 16, "depth": 1, "heads": 2}}


TOKENS = {"connector": {"kind": "hidden", "options": {"refiner": 1, "heads": 2}}, "reference": "vae_seq"}


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe with other keys of its model section (None: without), and loads it with overrides."""
    PixelPatches(16).save(tmp_path / "codec")
    model = tiny_model(codec=PixelPatches(16), image_size=64)
    save_model(tmp_path / "reader", model, tokenizer())
    base = {
        "model": {
            "kind": "external",
            "reader": {"name": str(tmp_path / "reader")},
            "codec": str(tmp_path / "codec"),
            "connector": QUERIES,
            "denoiser": {"options": {"width": 16, "depth": 1, "heads": 2, "condition": 16}},
            "drop": {"text": 0.3, "image": 0.1, "both": 0.1},
            "sampling": {"steps": 2},
            "batch_size": 4,
        },
        "data": {"sources": [{"source": "shapes"}], "workers": 0},
        "train": {"steps": 4, "logging_steps": 1, "save_steps": 2, "precision": "fp32", "weight_decay": 0.1},
        "output": {"dir": str(tmp_path / "run")},
    }

    def make(*overrides, **model):
        file = tmp_path / "recipe.yaml"
        section = {name: value for name, value in (base["model"] | model).items() if value is not None}
        file.write_text(yaml.safe_dump(base | {"model": section}))
        return load_recipe(file, list(overrides))

    return make


def entries(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_trains_saves_and_loads(recipe, tmp_path):
    before = unimodal.load(tmp_path / "reader").model.state_dict()
    folder = train(recipe("train.sample_steps=4"))
    model = unimodal.load(folder)
    assert isinstance(model.model, ExternalModel)
    assert model.generate("draw a red circle")[0].size == (64, 64)
    last = entries(tmp_path / "run")[-1]
    assert {"loss_image", "loss_image_bins", "tokens_per_second", "mfu"} <= last.keys()
    assert "loss_embedding" not in last
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    assert model.config.drop.text == 0.3  # the table travels with the model
    after = model.model.reader.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_resume_equals_straight_on(recipe, tmp_path):
    constant, again = "train.lr_scheduler_type=constant", f"output.dir={tmp_path / 'again'}"
    train(recipe("train.steps=2", again, constant))
    train(recipe("train.resume=auto", again, constant))
    train(recipe(f"output.dir={tmp_path / 'straight'}", constant))
    losses = [[entry["loss"] for entry in entries(tmp_path / name)] for name in ("again", "straight")]
    assert losses[0] == losses[1]
    first, second = (unimodal.load(tmp_path / n / "model").model.state_dict() for n in ("again", "straight"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_reader_that_changed_cannot_be_resumed_on(recipe, tmp_path):
    train(recipe("train.steps=2"))
    save_model(tmp_path / "reader", tiny_model(7, PixelPatches(16), image_size=64), tokenizer())
    with pytest.raises(UserError, match=r"has other weights, or .* than when"):
        train(recipe("train.resume=auto"))


def test_a_frozen_denoiser_that_changed_cannot_be_resumed_on(recipe, tmp_path):
    pretrained = f"output.dir={tmp_path / 'pretrained'}"
    train(recipe("train.steps=2", pretrained))
    bridge = [f"model.denoiser_from={tmp_path / 'pretrained' / 'model'}", "model.trained=[connector]"]
    train(recipe("train.steps=2", *bridge))
    train(recipe("train.steps=3", "train.resume=auto", *bridge))
    train(recipe("train.steps=3", "train.resume=auto", pretrained))
    with pytest.raises(UserError, match=r"denoiser\.\S+ is frozen, .* model\.denoiser_from"):
        train(recipe("train.steps=4", "train.resume=auto", *bridge))


def test_a_regressing_connector_has_a_loss_of_its_own(recipe, tmp_path):
    connector = {"kind": "prefilled", "options": {"side": 2, "width": 16}}
    train(recipe("train.steps=2", connector=connector))
    assert "loss_embedding" in entries(tmp_path / "run")[-1]


def test_first_the_connector_and_then_the_denoiser_too(recipe, tmp_path):
    """A denoiser of another model is bridged: frozen at first, then trained on."""
    train(recipe("train.steps=2", f"output.dir={tmp_path / 'pretrained'}"))
    pretrained = tmp_path / "pretrained" / "model"
    bridge = recipe(
        f"model.denoiser_from={pretrained}",
        "model.trained=[connector]",
        "train.steps=2",
        f"output.dir={tmp_path / 'bridge'}",
        connector={"kind": "hidden", "tap_layer": "mix"},
    )
    folder = train(bridge)
    first, second = (unimodal.load(name).model for name in (pretrained, folder))
    assert all(map(torch.equal, first.denoiser.parameters(), second.denoiser.parameters()))
    to = (f"output.dir={tmp_path / 'tuned'}", "train.steps=2")
    both = recipe(*to, init_from=str(folder), reader=None, codec=None, connector=None)
    with pytest.raises(UserError, match=r"model\.denoiser and model\.init_from exclude each other"):
        both.model.build(both)
    tuned = recipe(*to, init_from=str(folder), reader=None, codec=None, connector=None, denoiser=None)
    third = unimodal.load(train(tuned)).model
    for part in ("connector", "denoiser"):
        before, after = getattr(second, part).parameters(), getattr(third, part).parameters()
        assert not all(map(torch.equal, before, after))


@pytest.mark.parametrize("connector", ["queries", "hidden", "qformer", "prefilled"])
def test_a_bridged_connector_begins_at_the_statistics_that_the_denoiser_was_trained_under(
    recipe, tmp_path, connector
):
    """Divided by the old connector's sizes, channel by channel, a condition is of unit size everywhere."""
    before = recipe()
    trained = before.model.build(before).module
    sizes = torch.linspace(0.2, 5.0, 16)
    with torch.no_grad():
        trained.connector.norm.weight.copy_(sizes)
    save_external(tmp_path / "trained", trained)
    options = EXTERNALS[connector] if connector != "queries" else QUERIES["options"]
    said = recipe(denoiser_from=str(tmp_path / "trained"), connector={"kind": connector, "options": options})
    bridged = said.model.build(said).module
    assert torch.equal(bridged.connector.norm.weight, sizes)
    words = ("a red circle", "two", "make it green")
    prompts = [Document((Turn("user", (Text(one),)),)) for one in words]
    for model in (trained, bridged):
        cond, mask = model.connector(*model.read(prompts))
        unit = (cond / sizes)[mask].square().mean(-1)
        torch.testing.assert_close(unit, torch.ones_like(unit), atol=1e-3, rtol=1e-3)
    old, new = (m.connector(*m.read(prompts))[0].detach().std((0, 1)) for m in (trained, bridged))
    assert torch.corrcoef(torch.stack([old, new]))[0, 1] > 0.5


def test_null_takes_a_part_back(recipe, tmp_path):
    """So that one recipe trains the connector first, and by overrides both halves."""
    first = train(recipe("train.steps=1"))
    taken = [f"model.{part}=null" for part in ("reader", "codec", "connector", "denoiser")]
    both = recipe(f"model.init_from={first}", *taken)
    assert both.model.build(both).module.config.connector.options == QUERIES["options"]
    with pytest.raises(UserError, match=r"model\.batch_size"):
        recipe("model.batch_size=null")


def test_the_second_stage_that_a_shipped_recipe_names_can_be_read():
    """The overrides in its head, with nothing left of the parts that init_from brings."""
    file = RECIPES / "external" / "sd3.yaml"
    head = " ".join(line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    command = re.search(r"then +unimodal train recipes/external/sd3\.yaml ((?:\w+\.\w+=\S+ )+)", head)
    section = load_recipe(file, command.group(1).split()).model
    assert section.init_from == "runs/external-sd3/model" and not section.model_fields_set & set(PARTS)
    assert set(section.trained) == {"connector", "denoiser"}


def test_a_denoiser_with_its_own_text_encoder_is_pretrained_and_bridged(recipe, tmp_path):
    """Alone first, with the words and no language model; then a reader is put in front of it."""
    to = f"output.dir={tmp_path / 'alone'}"
    reader = {"kind": "tokens", "name": str(tmp_path / "reader")}
    pretrained = train(recipe(to, "train.steps=2", reader=reader, codec=None, **TOKENS))
    alone = unimodal.load(pretrained)
    assert alone.generate("draw a red circle")[0].size == (64, 64)
    with pytest.raises(UserError, match="cannot answer"):
        alone.complete("a red circle")
    bridge = recipe(
        "model.trained=[connector]", "train.steps=2", denoiser_from=str(pretrained), reference="dual"
    )
    bridged = unimodal.load(train(bridge))
    assert all(map(torch.equal, alone.model.denoiser.parameters(), bridged.model.denoiser.parameters()))
    assert isinstance(bridged.complete("a red circle", max_tokens=3), str)
    wrong = recipe(denoiser_from=str(pretrained), reference="vae_channel")
    with pytest.raises(UserError, match="Make them alike"):
        wrong.model.build(wrong)


@pytest.mark.parametrize("kind", ["sd3", "sana"])
def test_a_transformer_that_takes_no_tokens_says_what_to_set(recipe, kind):
    """`dual` is the default, so nobody need have named a reference."""
    wrong = recipe(denoiser={"kind": kind})
    assert wrong.model.reference == "dual"
    with pytest.raises(UserError, match=r"Set model\.reference=vlm, .* or model\.reference=vae_channel"):
        wrong.model.build(wrong)


def test_pictures_are_drawn_from_plans_where_the_reader_makes_some(recipe, tmp_path):
    refused = recipe("model.plans=true")
    with pytest.raises(UserError, match=r"model\.plans: the reader .* writes nothing before a picture"):
        refused.model.build(refused)
    writing = Writing(plan=4, temperature=1.0)
    reader = tiny_model(codec=PixelPatches(16), image_size=64, writing=writing)
    save_model(tmp_path / "reader", reader, tokenizer())
    for said, expected in (([], True), (["model.plans=false"], False)):
        made = recipe(*said)
        trainee = made.model.build(made)
        assert trainee.module.config.plans is expected
        batch = next(trainee.batches(None, 0, 1))
        whole = [trainee.rows(int(where.split(":")[1]), whole=True)[0] for where in batch.sample_ids]
        assert any(map(plan_of, whole)) is expected
    loaded = unimodal.load(train(recipe("train.steps=1")))
    assert loaded.config.plans and loaded.writing == writing


@pytest.mark.parametrize("plans", [None, True])
def test_a_denoiser_alone_may_be_trained_on_captions(recipe, tmp_path, plans):
    """What rows say before their pictures, which nobody writes before this one draws."""
    made = recipe(**TOKENS, reader={"kind": "tokens", "name": str(tmp_path / "reader")}, plans=plans)
    trainee = made.model.build(made)
    assert trainee.module.config.plans is bool(plans)
    told = " ".join(trainee.about())
    assert ("are left out here" in told) == (plans is None) and "is to write some" not in told
    whole = [trainee.rows(number, whole=True) for number in range(40)]
    assert any(plan_of(row[0]) for row in whole if row) is bool(plans)
    if plans:
        drawing = unimodal.load(train(made))
        assert len(drawing.generate("a red circle")) == 1 and not drawing.writes


def test_the_log_counts_rows_that_draw_nothing(recipe, tmp_path, capsys):
    """Every row that was read, of all tasks, against the rows themselves."""
    train(recipe("train.steps=3", "train.save_steps=3"))
    told = entries(tmp_path / "run")
    read, without = (sum(entry["rows"][name] for entry in told) for name in ("read", "without_picture"))
    state = json.loads((tmp_path / "run/checkpoints/step-000003/resume/state.json").read_text())
    assert state["data"][0]["shards"] == [{"next": read}]
    mixture = recipe().model.build(recipe()).rows.mixture
    draws = [any(image.trained for image in mixture.document(n).images) for n in range(read)]
    assert (sum(draws), draws.count(False)) == (12, without)
    said = " ".join(capsys.readouterr().out.split())
    assert "of the first 200 rows draw no picture: they teach an external model nothing" in said


def test_a_loss_that_is_no_number_names_the_rows_and_a_guarded_run_goes_on(recipe, tmp_path, monkeypatch):
    from unimodal.training.external_trainee import ExternalTrainee

    plain, seen = ExternalTrainee.losses, []

    def poisoned(self, batch, generator):
        losses = plain(self, batch, generator)
        # What a picture costs is counted on each of the first ones once more, alone.
        if len(batch.pictures) > 1 and batch.sample_ids not in seen:
            seen.append(batch.sample_ids)
        if seen[2:] == [batch.sample_ids]:
            losses.sums["image"] = losses.sums["image"] * float("nan")
        return losses

    monkeypatch.setattr(ExternalTrainee, "losses", poisoned)
    with pytest.raises(UserError, match=r"step 3 is not finite.*shapes/train:"):
        train(recipe())
    first, seen[:] = list(seen), []
    train(recipe("train.returns=1", f"output.dir={tmp_path / 'guarded'}"))
    assert seen[:3] == first and len(seen) == 5
    assert not set(itertools.chain(*seen[3:])) & set(itertools.chain(*first))
    assert [entry["step"] for entry in entries(tmp_path / "guarded")] == [1, 2, 3, 4]


def test_rows_draw_and_lose_conditions_as_the_table_says(recipe):
    rows = recipe().model.build(recipe()).rows
    kinds: Counter = Counter()
    stream = rows.from_number(0)
    for number, prompt, picture in (next(stream) for _ in range(600)):
        whole, same = rows(number, whole=True)
        assert (picture == same).all()
        kinds["text gone" if whole.turns and not _says(prompt) else "text kept"] += 1
    assert kinds["text gone"] / kinds.total() == pytest.approx(0.4, abs=0.07)


def _says(prompt):
    return any(hasattr(part, "text") for part in prompt.parts())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.reader=null"], r"model\.reader is missing"),
        (["model.codec=null", "model.reader.kind=transformers"], r"model\.codec is missing"),
        (["model.trained=[]"], r"model\.trained is empty"),
        (["model.reader.name=no/such/model/here"], "no model"),
        (["data.sources=[{source: shapes, tasks: {vqa: 1}}]"], "draw no picture"),
    ],
)
def test_what_is_missing_is_a_sentence(recipe, overrides, sentence):
    wrong = recipe(*overrides)
    with pytest.raises(UserError, match=sentence):
        next(wrong.model.build(wrong).batches(None, 0, 1))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.connector.kind=query", "did you mean 'queries'"),
        ("model.denoiser.kind=unet", "expected one of dit"),
        ("model.connector.options.depht=3", "depht"),
        ("model.denoiser.options.heads=3", "width 16 must be a multiple of heads 3"),
    ],
)
def test_a_mistake_in_the_recipe_is_a_sentence(recipe, override, sentence):
    with pytest.raises(UserError, match=sentence):
        recipe(override)


def test_flops_are_those_of_forward_and_backward(recipe):
    """A matrix costs two operations a weight and position forward, and again for each gradient of it.

    Told apart by differences: the frozen reader's layers are read once, and passed once more by the gradients
    of what is appended; a frozen denoiser's weights need no gradient of their own.
    """
    found = {}
    for kind, trained in itertools.product(("hidden", "queries"), ("connector", "both")):
        parts = ["connector"] if trained == "connector" else ["connector", "denoiser"]
        made = recipe(connector=QUERIES if kind == "queries" else {"kind": kind}, trained=parts)
        trainee = made.model.build(made)
        batch = next(trainee.batches(None, 0, 1))
        before = [weight.grad for weight in trainee.module.parameters()]
        found[kind, trained] = trainee.flops(batch)
        assert all(weight is None for weight in before)
        assert all(weight.grad is None for weight in trainee.module.parameters())
        # The denoiser's way in and out, by far its largest matrices, of 4 x 4 cells of 768 channels.
        cells = 4 * 4 * len(batch.pictures)
        if trained == "both":
            own = 2 * cells * 768 * 16
            gained = found[kind, "both"] - found[kind, "connector"]
            assert gained > 2 * own  # of the way in, its weights' gradient, and of the way out the same
            assert gained < 4 * own
    assert found["queries", "both"] > 1.2 * found["hidden", "both"]


def test_flops_count_attention_and_no_encoding(recipe, monkeypatch):
    """Attention is two products of 2 T T' H operations a head; with gradients of the factors thrice that."""
    made = recipe(connector={"kind": "hidden"})
    trainee = made.model.build(made)
    batch = next(trainee.batches(None, 0, 1))
    assert any(prompt.images for prompt in batch.prompts)
    whole = trainee.flops(batch)
    attended = []

    def without_products(q, k, v, mask):
        times = 3 if q.requires_grad else 1
        attended.append(times * 4 * q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] * q.shape[3])
        return q + k.mean(2, keepdim=True) + v.mean(2, keepdim=True)

    with monkeypatch.context() as patched:
        patched.setattr(naive, "attend", without_products)
        trainee._costs.clear()
        assert whole - trainee.flops(batch) == pytest.approx(sum(attended), rel=1e-3)

    encode = PixelPatches.encode
    busy = torch.ones(64, 64)
    monkeypatch.setattr(PixelPatches, "encode", lambda self, signal: (busy @ busy, encode(self, signal))[1])
    trainee._costs.clear()
    assert trainee.flops(batch) == whole


def test_flops_of_pictures_are_counted_alone_up_to_a_number(recipe, monkeypatch):
    monkeypatch.setattr(external_trainee, "COUNTED", 6)
    made = recipe(connector={"kind": "hidden"})
    trainee = made.model.build(made)
    batches = trainee.batches(None, 0, 1)
    first, second, third = (next(batches) for _ in range(3))
    lengths = {
        sum(len(part.text) for turn in p.turns for part in turn.parts if isinstance(part, Text))
        for p in first.prompts
    }
    assert len(lengths) > 1 and len(first.pictures) == 4
    costs = [trainee._count_flops(batch.alone(row)) for batch in (first, second) for row in range(4)]
    assert len(set(costs)) > 1
    assert trainee.flops(first) == sum(costs[:4])
    assert trainee.flops(second) == sum(costs[4:])
    assert trainee.flops(third) == pytest.approx(sum(costs) / 2)


def test_kept_conditions_give_the_same_losses(recipe, tmp_path):
    hidden = {"kind": "hidden", "options": {"heads": 2}}
    runs = ("plain", "first", "second")
    for name in runs:
        kept = [] if name == "plain" else [f"model.cache={tmp_path / 'cache'}"]
        train(recipe(f"output.dir={tmp_path / name}", *kept, connector=hidden))
    plain, first, second = ([entry["loss"] for entry in entries(tmp_path / name)] for name in runs)
    assert first == pytest.approx(plain, rel=1e-4)
    assert second == pytest.approx(plain, rel=1e-4)
    assert list((tmp_path / "cache").rglob("shard-*.safetensors"))


def test_it_is_judged_as_any_other_and_bench_says_that_it_is_not_for_it(recipe, tmp_path):
    from unimodal.evaluation.bench import bench
    from unimodal.evaluation.run import evaluate

    folder = train(recipe("train.steps=1"))
    scores = evaluate(str(folder), n=1, tasks=("t2i", "edit", "vqa")).scores
    assert {"t2i/mean", "edit/followed", "vqa/mean", "codec/psnr"} <= scores.keys()
    with pytest.raises(UserError, match="external"):
        bench(str(folder))


@pytest.mark.parametrize("path", sorted((RECIPES / "external").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_say_what_an_external_model_can_be(path):
    assert load_recipe(path).model.kind == "external"


def test_a_transformer_of_diffusers_is_bridged_and_saved(recipe, tmp_path, caplog):
    """Its folder brings shape and weights; the saved model needs the folder no more."""
    import shutil

    from diffusers import SD3Transformer2DModel

    shape = {
        "sample_size": 4,
        "patch_size": 1,
        "num_layers": 1,
        "attention_head_dim": 8,
        "pos_embed_max_size": 4,
    }
    shape |= {"num_attention_heads": 2, "caption_projection_dim": 16, "joint_attention_dim": 12}
    pretrained = SD3Transformer2DModel(**shape, pooled_projection_dim=8, in_channels=768, out_channels=768)
    pretrained.save_pretrained(tmp_path / "sd3")
    parts = {"denoiser": {"kind": "sd3"}, "denoiser_from": str(tmp_path / "sd3"), "trained": ["connector"]}
    blind = recipe(**parts, reference="vae_channel")
    with pytest.raises(UserError, match=r"they begin at zero, and with .* would stay so"):
        blind.model.build(blind)
    both = recipe(**parts | {"trained": ["connector", "denoiser"]}, reference="vae_channel")
    assert both.model.build(both).module.denoiser.transformer.pos_embed.proj.weight.requires_grad
    with caplog.at_level("WARNING", "unimodal"):
        folder = train(recipe("train.steps=1", **parts, reference="vlm"))
    assert "model.denoiser.options.scale is not set" in caplog.text
    caplog.clear()
    loud = recipe("model.denoiser.options.scale=7.0", **parts, reference="vlm")
    assert (loud.model.build(loud).module.connector.norm.weight == 7).all() and not caplog.records
    shutil.rmtree(tmp_path / "sd3")
    loaded = unimodal.load(folder)
    kept, first = loaded.model.denoiser.transformer.state_dict(), pretrained.state_dict()
    assert all(torch.equal(kept[name], first[name]) for name in first)
    assert loaded.generate("draw a red circle")[0].size == (64, 64)
