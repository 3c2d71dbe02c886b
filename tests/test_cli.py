import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import unimodal
from tests.chat.fake import FakeUnimodal
from unimodal.cli import app, main
from unimodal.commands import recipes
from unimodal.errors import UserError

VERBS = [
    *("train", "generate", "edit", "ask", "complete", "chat", "eval", "bench", "env", "init", "export"),
    *(
        "data check",
        "data preview",
        "data make shapes",
        "data make emoji",
        "data convert",
        "recipes ls",
        "recipes show",
        "recipes cp",
    ),
]


@pytest.fixture
def model(monkeypatch, tmp_path) -> FakeUnimodal:
    """A fake in the place of every loaded model, and a working folder of its own."""
    fake = FakeUnimodal()
    monkeypatch.setattr(unimodal, "load", lambda name: fake, raising=False)
    monkeypatch.chdir(tmp_path)
    return fake


def run(*args: str) -> str:
    result = CliRunner().invoke(app, args, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb):
    assert "Usage:" in run(*verb.split(), "--help")


def test_nothing_heavy_is_imported_for_help():
    code = (
        "import sys, unimodal.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(unimodal.cli.app, ['--help']).exit_code == 0\n"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {
        "torch",
        "transformers",
        "diffusers",
        "datasets",
        "accelerate",
        "numpy",
        "PIL",
        "prompt_toolkit",
        "omegaconf",
    }
    assert heavy.isdisjoint(loaded)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["train", "no-such.yaml"], "there is no recipe 'no-such.yaml'"),
        (["recipes", "show", "no-such"], "there is no recipe 'no-such'"),
        (["ask", "gone.png", "what is it?"], "gone.png cannot be opened"),
        (["chat", "--image", "gone.png", "-p", "what is it?"], "gone.png cannot be opened"),
        (["data", "check", "gone.jsonl"], "gone.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(model, monkeypatch, capsys, args, sentence):
    monkeypatch.setattr(sys, "argv", ["unimodal", *args])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err
    assert stop.value.code == 2
    assert sentence in told
    assert told.count("\n") == 1
    assert "Traceback" not in told


def test_an_unknown_model_is_told_in_a_new_process(tmp_path):
    command = [sys.executable, "-m", "unimodal", "complete", "once", "--model", "no-such-model"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no-such-model" in done.stderr
    assert "Traceback" not in done.stderr


def test_generate_numbers_pictures_and_prints_their_paths(model):
    out = run("generate", "a red circle", "a green star", "--n", "2", "--seed", "5", "--steps", "3")
    kind, options = model.calls[0]
    assert kind == "generate"
    assert options["prompt"] == ["a red circle", "a green star"]
    assert (options["n"], options["seed"], options["steps"], options["guidance"]) == (2, 5, 3, None)
    paths = [Path(line) for line in out.splitlines()]
    assert [p.name for p in paths] == [f"picture-000{i}.png" for i in (1, 2, 3, 4)]
    colours = [Image.open(p).getpixel((0, 0)) for p in paths]
    assert colours == [(255, 0, 0)] * 2 + [(0, 128, 0)] * 2


def test_generate_into_a_file_overwrites_nothing(model):
    assert run("generate", "a red circle", "--out", "new/red.png").split() == ["new/red.png"]
    with pytest.raises(UserError, match=r"red\.png is there already"):
        run("generate", "a green star", "--out", "new/red.png")
    assert run("generate", "a green star", "-n", "2", "--out", "new/red.png").split() == [
        "new/red-1.png",
        "new/red-2.png",
    ]


def test_edit_ask_and_complete(model):
    Image.new("RGB", (8, 8), "blue").save("mine.png")
    path = run("edit", "mine.png", "make it red", "--image-guidance", "1.5", "--out", "after.png").strip()
    assert Image.open(path).getpixel((0, 0)) == (255, 0, 0)
    assert model.calls[-1][1]["image_guidance"] == 1.5
    assert run("ask", "mine.png", "how many?", "--max-tokens", "4") == "two\n"
    assert model.calls[-1][1]["image"].getpixel((0, 0)) == (0, 0, 255)
    assert run("complete", "once", "--temperature", "0.5") == "once and so on\n"
    assert model.calls[-1][1]["temperature"] == 0.5


def test_chat_answers_one_prompt_and_a_pipe(model):
    assert run("chat", "-p", "how many?") == "there are 0 pictures.\n"
    lines = CliRunner().invoke(app, ["chat", "--save-dir", "here"], input="draw a red circle\nhow many?\n")
    assert lines.stdout == "here/picture-0001.png\nthere are 1 pictures.\n"


def test_a_full_disk_is_a_sentence(monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "rows/train.jsonl")

    monkeypatch.setattr("data_tools.shapes.build.make_shapes", full)
    monkeypatch.setattr(sys, "argv", ["unimodal", "data", "make", "shapes", "--out", "rows"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "disk is full: rows/train.jsonl could not be finished" in capsys.readouterr().err


def test_data_check_and_preview(model):
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    Path("good.jsonl").write_text(json.dumps(row) + "\n")
    Path("bad.jsonl").write_text(
        json.dumps(row | {"imgs": []}) + "\n" + json.dumps(row | {"images": ["x.png"]})
    )
    assert "Every row is right" in run("data", "check", "good.jsonl")
    result = CliRunner().invoke(app, ["data", "check", "bad.jsonl"])
    assert result.exit_code == 1
    assert "bad.jsonl:2" in result.stdout
    assert "hello" in run("data", "preview", "good.jsonl")
    assert run("data", "preview", "good.jsonl", "--out", "seen.png").strip() == "seen.png"
    assert Image.open("seen.png").width > 100
    result = CliRunner().invoke(
        app, ["data", "preview", "good.jsonl", "--out", "b.png", "--font", "bad.jsonl"]
    )
    assert "bad.jsonl is no font that can be read" in str(result.exception)


def test_data_check_measures_rows_as_a_model_lays_them_out(tmp_path, monkeypatch):
    from unimodal.images.codec import PixelPatches
    from unimodal.model.config import ModelConfig
    from unimodal.model.folder import save_model
    from unimodal.model.unified import UnifiedModel
    from unimodal.sequence.tokenizer import train_tokenizer

    monkeypatch.chdir(tmp_path)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = ModelConfig(vocab_size=300, num_key_value_heads=1, head_dim=32, image_size=32, **shape)
    save_model(Path("model"), UnifiedModel(config, PixelPatches(8)), train_tokenizer(["a red circle"], 300))
    Image.new("RGB", (64, 64), "red").save("a.png")
    messages = [{"role": "user", "content": "a red circle"}, {"role": "assistant", "content": "<image>"}]
    Path("rows.jsonl").write_text(json.dumps({"messages": messages, "images": ["a.png"]}))
    report = CliRunner().invoke(app, ["data", "check", "rows.jsonl", "--model", "model", "--budget", "20"])
    assert report.exit_code == 1
    # 16 positions of the picture, brought to 32x32, are among them: fewer than 20 are left for the text
    assert "budget is 20" in " ".join(report.stdout.split())
    assert "fits 64 positions" in run("data", "check", "rows.jsonl", "--model", "model", "--budget", "64")


def test_recipes_are_listed_shown_and_copied(monkeypatch, tmp_path):
    (tmp_path / "shipped" / "codec").mkdir(parents=True)
    text = "# A codec for shapes.\n# unimodal train codec/shapes\ntrain:\n  steps: 1\n"
    (tmp_path / "shipped" / "codec" / "shapes.yaml").write_text(text)
    monkeypatch.setattr(recipes, "RECIPES", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    listed = run("recipes", "ls")
    assert "codec/shapes" in listed
    assert "A codec for shapes." in listed
    assert run("recipes", "show", "codec/shapes.yaml") == text
    assert run("recipes", "cp", "codec/shapes").strip() == "shapes.yaml"
    assert Path("shapes.yaml").read_text() == text
    with pytest.raises(UserError, match="is there already"):
        run("recipes", "cp", "codec/shapes")
    with pytest.raises(UserError, match="did you mean 'codec/shapes'"):
        run("recipes", "cp", "codec/shape")


def test_a_copied_recipe_has_a_run_of_its_own_and_nothing_else_changes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run("recipes", "cp", "finetune/vqa_lora", "my.yaml").strip() == "my.yaml"
    shipped = recipes.find_recipe("finetune/vqa_lora").read_text().splitlines()
    copied = Path("my.yaml").read_text().splitlines()
    differ = [(old, new) for old, new in zip(shipped, copied, strict=True) if old != new]
    assert differ == [("  dir: runs/finetune/vqa_lora", "  dir: runs/my")]
    said = "# a\noutput: {dtype: float16, dir: 'runs/x'}  # where\ntrain: {steps: 1}\n"
    Path("flow.yaml").write_text(said)
    run("recipes", "cp", "flow.yaml", "two words.yaml")
    assert Path("two words.yaml").read_text() == said.replace("'runs/x'", '"runs/two words"')
    Path("plan.yaml").write_text("entrants: []\n")
    run("recipes", "cp", "plan.yaml", "plan2.yaml")
    assert Path("plan2.yaml").read_text() == "entrants: []\n"


@pytest.mark.parametrize("name", ["recipes/codec/vq.yaml", "./recipes/codec/vq.yaml", "codec/vq.yaml"])
def test_a_shipped_recipe_is_found_as_a_clone_calls_it(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    assert recipes.find_recipe(name) == recipes.RECIPES / "codec" / "vq.yaml"
    own = tmp_path / name
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("{}")
    assert recipes.find_recipe(name) == Path(name)


def test_rows_that_a_header_says_how_to_make():
    assert recipes.rows_maker(Path("data/emoji/val.jsonl")) == "`unimodal data make emoji --out data/emoji`"
    for other in ("data/rows.jsonl", "rows.jsonl", "data/emoji2/val.jsonl"):
        assert recipes.rows_maker(Path(other)) is None


def test_env_names_what_a_bug_report_needs(monkeypatch):
    monkeypatch.setattr("unimodal.training.throughput.gemm_rate", lambda device, dtype: 1e9)
    out = run("env")
    for word in (
        "torch",
        unimodal.__version__,
        "device",
        "threads",
        "GEMM fp32",
        "GEMM bf16",
        "1.0 GFLOP/s",
        "pictures",
    ):
        assert word in out


def test_a_part_of_the_shapes_suite_is_named_or_refused():
    with pytest.raises(UserError, match=r"task 'vqaa'; expected one of .*did you mean 'vqa'"):
        CliRunner().invoke(app, ["eval", "shapes-base", "--task", "vqaa"], catch_exceptions=False)
