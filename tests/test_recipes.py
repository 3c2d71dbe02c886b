"""The shipped recipes run: every one for a CPU for two steps, on rows of the kind it names.

Rows, pretrained parts and codecs that a recipe expects on the disk are made small, under the names it gives.
"""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.documents import WORDS
from tests.pretrained.checkpoints import make
from unimodal.commands.recipes import RECIPES, find_recipe, shipped_recipes
from unimodal.images.codec import PixelPatches
from unimodal.training.config import load_recipe
from unimodal.training.loop import train
from unimodal.training.unified import UnifiedModelSection

COMPARED = ("compare/", "demo")  # these are for `unimodal compare`, and tests/test_demo.py runs the other
TRAINED = [name for name in shipped_recipes() if not name.startswith((*COMPARED, "finetune/"))]
TRAINED.remove("external/sd3")  # pretrained parts on a GPU
FINETUNE = [name for name in shipped_recipes() if name.startswith("finetune/")]
ON_CPU = [name for name in FINETUNE if "/gpu/" not in name]
ON_GPU = [name for name in FINETUNE if "/gpu/" in name]
TASKS = ("t2i", "edit", "vqa", "text")
# What a folder of rows holds, by a word of its name.
KINDS = {"emoji": "t2i", "tiles": "edit", "nlvr": "vqa", "gsm8k": "text", "plain": "plain", "chat": "text"}
QUICK = ["train.steps=2", "train.logging_steps=1", "train.precision=fp32"]
JUDGED = ["train.eval_steps=1", "data.eval_rows=2"]
SMALL = ["data.workers=0", "train.threads=1", "train.warmup_steps=0"]
SMALL += ["train.sample_steps=null", "train.lr_scheduler_type=cosine", "train.decay_steps=0"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No timing of matrix products."""
    monkeypatch.setattr("unimodal.training.precision.gemm_rate", lambda device, dtype: 1e9)


def row_of(kind: str, number: int) -> dict:
    """A row of a task, or a plain text."""
    text = " ".join(WORDS[number % 5 :][:4])
    if kind == "plain":
        return {"text": text}
    user, assistant, images = {
        "t2i": (text, "<image>", ["a.png"]),
        "edit": (f"<image>{text}", "<image>", ["a.png", "b.png"]),
        "vqa": (f"<image>{text}", "yes", ["a.png"]),
        "text": (text, "two", []),
    }[kind]
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return {"messages": messages, "images": images} if images else {"messages": messages}


def make_rows(path: Path, kind: str) -> None:
    """A file of rows and its pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 64), colour).save(path.parent / name)
    path.write_text("".join(json.dumps(row_of(kind, n)) + "\n" for n in range(6)))


def prepared(name: str, *overrides: str):
    """The recipe with what it needs in place, made short."""
    recipe = load_recipe(find_recipe(name), [*QUICK, *SMALL, *overrides])
    for source in (*recipe.data.sources, *recipe.data.eval_sources):
        if source.path:
            folder = Path(source.path).parent.name
            words = folder.removesuffix("-val")
            kind = KINDS.get(words.split("-")[0], words)
            make_rows(Path(source.path), kind)
    return recipe


def header_of(name: str) -> list[str]:
    """The comment above a recipe."""
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("#")]


def after_what_it_names(name: str) -> Path:
    """Train what the header says comes before, unless it was, then the recipe itself: its output folder."""
    small = ["model.batch_size=4"] if name.startswith(("codec/", "external/")) else ["data.tokens=1024"]
    if name.startswith("codec/") and "anchor" not in find_recipe(name).read_text(encoding="utf-8"):
        small.append("model.measured=8")  # with an anchor nothing is
    recipe = prepared(name, "train.flops=null", *small)
    if not recipe.output.dir.exists():
        before = re.search(r"#   before(.*?)\n#( {3}\w|\n)", "\n".join(header_of(name)), re.DOTALL)
        for other in re.findall(r"unimodal train recipes/(\S+)\.yaml", before[1] if before else ""):
            after_what_it_names(other)
        train(recipe)
    return recipe.output.dir


def test_every_task_has_its_recipes() -> None:
    expected = {f"finetune/{task}_{kind}" for task in TASKS for kind in ("lora", "full")}
    assert set(ON_CPU) == expected | {"finetune/mixed"}
    assert set(ON_GPU) == {f"finetune/gpu/{task}" for task in TASKS}


@pytest.mark.parametrize("name", ON_CPU)
def test_a_recipe_for_the_cpu_runs_two_steps(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = prepared(name, *JUDGED, "data.tokens=1024")
    folder = train(recipe)
    assert folder.name == ("adapter" if name.endswith("_lora") else "model")
    assert folder.parent == Path("runs") / name
    entries = [json.loads(line) for line in (folder.parent / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "eval_loss" in entry] == [0, 1, 2]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """One folder for all recipes, since some start from what others make."""
    return tmp_path_factory.mktemp("recipes")


@pytest.mark.parametrize("name", TRAINED)
def test_every_other_recipe_runs_two_steps_after_what_it_names(name: str, workplace, monkeypatch) -> None:
    monkeypatch.chdir(workplace)
    assert (after_what_it_names(name) / "model" / "config.json").is_file()


@pytest.mark.parametrize("name", ON_GPU)
def test_a_recipe_for_a_gpu_runs_two_steps_on_tiny_parts(name: str, tmp_path: Path, monkeypatch) -> None:
    """All but sizes and precision is as it ships: what is trained, the adapter, checkpointing."""
    from unimodal.pretrained.initialise import init_model

    monkeypatch.chdir(tmp_path)
    recipe = prepared(
        name, *JUDGED, "data.eval_rows=2", "train.gradient_accumulation_steps=2", "data.tokens=512"
    )
    make("qwen3", Path("llm"))
    PixelPatches(16).save("codec")
    init_model("llm", "codec", Path(recipe.model.init_from), settings=["image_size=64"])
    folder = train(recipe)
    assert folder == recipe.output.dir / ("adapter" if recipe.model.lora else "model")


@pytest.mark.parametrize("name", FINETUNE)
def test_a_header_says_what_is_asked_of_it(name: str) -> None:
    header = header_of(name)
    for word in ("command", "before", "hardware", "time", "memory", "expected"):
        assert any(line.startswith(f"#   {word}") for line in header), word
    assert all(len(line) <= 120 for line in header)
    for word in ("time", "memory", "expected"):
        said = said_of(word, header)
        if name in ON_GPU:
            assert said.startswith("estimated"), word
        else:
            assert said.startswith("not yet run") or re.search(r"\d", said), word


def said_of(word: str, header: list[str]) -> str:
    """What a header says under a word, its further lines included."""
    found = re.search(
        rf"^#   {word} +(.*?)(?=^# {{1,3}}\w|^#$|\Z)", "\n".join(header), re.DOTALL | re.MULTILINE
    )
    return " ".join(re.sub(r"^#", "", found[1], flags=re.MULTILINE).split())


@pytest.mark.parametrize("name", ON_GPU)
def test_an_estimated_time_follows_from_what_it_is_said_to(name: str) -> None:
    """Hours are operations of all steps at the rate, and those of a step the sum of their parts."""
    header, recipe = header_of(name), load_recipe(find_recipe(name))
    pattern = r"([\d.]+) hours .*?(\d+) TFLOP a step x ([\d,]+) steps / (\d+) TFLOP/s"
    hours, step, steps, rate = (
        float(n.replace(",", "")) for n in re.search(pattern, said_of("time", header)).groups()
    )
    assert steps == recipe.train.steps
    assert hours == pytest.approx(step * steps / rate / 3600, rel=0.02)
    text = " ".join(line.lstrip("# ") for line in header)
    parts = re.search(r"in TFLOP: (.*?)\.", text)[1]
    assert sum(map(float, re.findall(r" (\d+)(?:,|$)", parts))) == step
    packs = recipe.train.gradient_accumulation_steps
    assert f"{packs} packs of {recipe.data.tokens:,} positions" in text
    cost, weights = (4, 1409e6) if recipe.model.lora else (6, 440.4e6)  # those of Qwen3's layers
    layers = float(re.search(r"layers (\d+)", parts)[1])
    assert layers == pytest.approx(cost * weights * packs * recipe.data.tokens / 1e12, rel=0.03)


@pytest.mark.parametrize("name", FINETUNE)
def test_the_base_is_replayed_and_the_best_is_kept(name: str) -> None:
    """Rows of another kind than those that are judged, or the base's own."""
    recipe = load_recipe(find_recipe(name))
    assert isinstance(recipe.model, UnifiedModelSection)
    assert (recipe.model.init_from in ("shapes-base", "real-base")) == (name in ON_CPU)
    judged = {Path(source.path).parent.name.removesuffix("-val") for source in recipe.data.eval_sources}
    replayed = [s for s in recipe.data.sources if s.source or Path(s.path).parent.name not in judged]
    assert [s.source for s in replayed] == (["shapes"] if name in ON_CPU else [None])
    assert 0 < replayed[0].weight < sum(source.weight for source in recipe.data.sources)
    assert recipe.train.load_best_model_at_end
    assert recipe.train.early_stopping_patience
    trained, held = ({s.path for s in group} for group in (recipe.data.sources, recipe.data.eval_sources))
    assert not trained & held
