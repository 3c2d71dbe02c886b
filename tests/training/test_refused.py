"""What a run refuses before it trains, a dry run alike; and a row that turns out broken in its midst."""

import json
import re

import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import unimodal
import unimodal.attention.door as attention
from tests.adapters.make import base_folder
from tests.training.rows import question_rows
from unimodal.cli import app
from unimodal.errors import UserError
from unimodal.images.codec import PixelPatches
from unimodal.training.config import load_recipe
from unimodal.training.dry_run import dry_run
from unimodal.training.loop import train
from unimodal.training.unified import mixture_of


def write_rows(folder, long):
    """Twenty rows, those numbered in `long` (from 1) too long for 200 positions by words or a picture."""
    Image.new("RGB", (256, 16), "red").save(folder / "strip.png")
    Image.new("RGB", (256, 256), "blue").save(folder / "square.png")
    lines = []
    for number in range(1, 21):
        words = "yes " * (1000 if number in long else 10)
        said = "<image>" if number % 2 else words
        messages = [{"role": "user", "content": "a picture"}, {"role": "assistant", "content": said}]
        picture = "square.png" if number in long else "strip.png"
        lines.append({"messages": messages} | ({"images": [picture]} if number % 2 else {}))
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.parametrize("run", [train, dry_run])
@pytest.mark.parametrize("section", ["sources", "eval_sources"])
def test_every_row_that_fits_no_pack_is_named_before_anything_is_trained(recipe, tmp_path, section, run):
    PixelPatches(16).save(tmp_path / "codec")
    file = write_rows(tmp_path, long=(4, 16, 19))
    short = tmp_path / "short.jsonl"
    short.write_text('{"text": "yes"}\n')
    said = [f"data.sources=[{{path: {short}}}]", f"data.{section}=[{{path: {file}}}]"]
    said += ["data.tokens=200", "model.image_size=256"]
    said += ["train.eval_steps=2"] if section == "eval_sources" else []
    with pytest.raises(UserError) as caught:
        run(recipe(*said))
    first, *named, last = str(caught.value).splitlines()
    assert first.startswith("3 rows do not fit the budget of 200 positions (data.tokens)")
    assert [line.split(": ")[0] for line in named] == [f"{file}:{number}" for number in (4, 16, 19)]
    lengths = [int(line.split()[-2]) for line in named]
    assert lengths[0] == lengths[1] > 500 and 256 < lengths[2] < 280
    assert f"data.tokens={max(lengths)} or more" in last
    assert not (tmp_path / "run").exists()
    write_rows(tmp_path, long=())
    run(recipe(*said, "train.steps=2"))


def on_limited(tmp_path, limit, source, **model):
    """The recipe of a tiny model that takes so many rotary positions of a document."""
    base = base_folder(tmp_path / "base", sliding_window=limit)
    raw = {
        "model": {"init_from": str(base), **model},
        "data": {"sources": [source], "tokens": 512, "workers": 0},
        "train": {"steps": 2, "precision": "fp32"},
        "output": {"dir": str(tmp_path / "run")},
    }
    (tmp_path / "limited.yaml").write_text(yaml.safe_dump(raw))
    return load_recipe(tmp_path / "limited.yaml")


@pytest.mark.parametrize("run", [train, dry_run])
def test_rows_that_are_too_long_for_the_model_are_named_before_anything_is_trained(tmp_path, run):
    """Of a picture its longer side counts, so a row may fill more of a pack than the model's limit."""
    file = tmp_path / "rows.jsonl"
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    drawn = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<image>"}]}
    rows = [drawn | {"images": ["a.png"]}, *({"text": "yes " * count} for count in (60, 10, 50))]

    def write(numbers):
        file.write_text("".join(json.dumps(rows[number]) + "\n" for number in numbers))
        return on_limited(tmp_path, 40, {"path": str(file)}, image_size=32)

    with pytest.raises(UserError) as caught:
        run(write(range(4)))
    first, *named, last = str(caught.value).splitlines()
    assert first.startswith("2 rows do not fit the 40 rotary positions that this model takes (its max_length")
    assert [line.split(": ")[0] for line in named] == [f"{file}:2", f"{file}:4"]
    assert "Nothing was trained" in last and not (tmp_path / "run").exists()
    command = ["data", "check", str(file), "--model", str(tmp_path / "base")]
    checked = CliRunner().invoke(app, command)
    assert checked.exit_code == 1 and "2 of 4 rows are wrong" in checked.output
    assert f"{file}:4: the row takes" in checked.output.replace("\n", "")
    fitting = write((0, 2))
    trainee = fitting.model.build(fitting)
    drawn = trainee.rows(next(n for n in range(4) if trainee.rows.document(n).images))
    assert len(drawn) > 40 >= drawn.position.max() + 1
    run(fitting)


def test_a_row_that_is_made_too_long_for_the_model_is_named(tmp_path):
    with pytest.raises(UserError, match=r"shapes.*: the row takes \d+ rotary positions, .* takes 4 at most"):
        train(on_limited(tmp_path, 4, {"source": "shapes"}))


@pytest.mark.parametrize("run", [train, dry_run])
def test_a_missing_file_is_named_by_its_key_and_with_what_makes_it(recipe, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    live = "{source: shapes}"
    with pytest.raises(UserError) as caught:
        run(recipe(f"data.sources=[{live}, {{path: data/nlvr/train.jsonl}}]"))
    told = str(caught.value)
    assert told.startswith("data.sources[1].path: there is no file data/nlvr/train.jsonl")
    assert "`unimodal data make nlvr nlvr --out data/nlvr`" in told
    assert "image_root" not in told
    with pytest.raises(UserError, match=r"data.eval_sources\[0\].path: .* name a JSONL or parquet file"):
        run(recipe("data.eval_sources=[{path: data/own.jsonl}]", "train.eval_steps=2"))
    (tmp_path / "own.jsonl").write_text('{"text": "yes"}\n')
    with pytest.raises(UserError, match=r"data.sources\[0\].image_root: pictures is no folder"):
        run(recipe("data.sources=[{path: own.jsonl, image_root: pictures}]"))


@pytest.mark.parametrize("run", [train, dry_run])
def test_a_run_that_is_over_does_not_go_on_with_other_rows(recipe, tmp_path, run):
    for name in ("old", "new"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "yes"}\n')
    old, new = (f"data.sources=[{{path: {tmp_path / name}.jsonl}}]" for name in ("old", "new"))
    train(recipe(old, "train.steps=2"))
    again = ["train.resume=auto", "train.steps=2"]
    run(recipe(old, *again))
    with pytest.raises(UserError) as caught:
        run(recipe(new, *again))
    for words in ("no step left", "old.jsonl", "new.jsonl", "another output.dir", "more train.steps"):
        assert words in str(caught.value)
    run(recipe(new, "train.resume=auto", "train.steps=3"))


@pytest.mark.parametrize("run", [train, dry_run])
def test_a_run_that_stopped_early_does_not_go_on_with_other_rows(recipe, tmp_path, run):
    for name in ("old", "new"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "yes"}\n')
    old, new = (f"data.sources=[{{path: {tmp_path / name}.jsonl}}]" for name in ("old", "new"))
    said = [f"data.eval_sources=[{{path: {tmp_path / 'old'}.jsonl}}]", "train.eval_steps=1", "train.steps=9"]
    said += ["train.early_stopping_patience=1", "train.learning_rate=1e-12", "train.muon_learning_rate=1e-12"]
    train(recipe(old, *said))
    assert max(map(int, (d.name[5:] for d in (tmp_path / "run" / "checkpoints").iterdir()))) < 9
    with pytest.raises(UserError, match="no step left"):
        run(recipe(new, *said, "train.resume=auto"))


def test_a_dry_run_refuses_what_the_run_refuses(recipe, tmp_path):
    with pytest.raises(UserError, match="FlexAttention has no backward on CPU"):
        dry_run(recipe("train.attention=flex"))
    assert attention._override is None
    train(recipe("train.steps=2"))
    with pytest.raises(UserError, match="already holds a run"):
        dry_run(recipe("train.steps=2"))
    with pytest.raises(UserError, match=r"beyond train\.steps=1"):
        dry_run(recipe("train.steps=1", "train.resume=auto"))


def test_a_dry_run_computes_attention_as_train_attention_says(recipe, monkeypatch):
    used = []
    monkeypatch.setattr(attention.naive, "attend", lambda *a: used.append(1) or attention.sdpa.attend(*a))
    monkeypatch.setattr(attention.naive, "prepare", attention.sdpa.prepare)
    dry_run(recipe())
    assert not used
    dry_run(recipe("train.attention=naive"))
    assert used


def test_a_row_that_is_wrong_is_found_before_anything_is_trained(recipe, tmp_path):
    source = question_rows(tmp_path)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('\n{"text": "good"}\n{"texd": "bad"}\n')
    (tmp_path / "3.png").unlink()
    with pytest.raises(UserError, match=r"(?s)rows.jsonl:4: .*no file at.*rows.jsonl:10: .*'texd'"):
        train(recipe(source))
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"rows.jsonl:4: .*no file at"):
        dry_run(recipe(source))


def test_a_picture_that_breaks_off_costs_nothing_learned(recipe, tmp_path):
    """Its pixels are seen late; what was learned is saved, and goes on once the row is mended."""
    source = question_rows(tmp_path, 300)
    late = mixture_of(recipe(source).data).document(250).id.split(":")[-1]
    broken = tmp_path / f"{int(late) - 1}.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    base = train(recipe("train.steps=1", f"output.dir={tmp_path / 'base'}"))  # else a tokenizer comes first
    said = [source, f"model.init_from={base}", "model.codec=null", "train.steps=30", "train.save_steps=100"]
    words = rf"(?s)rows.jsonl:{late}: .*Step (\d+) was saved before: mend the row"
    with pytest.raises(UserError, match=words) as told:
        train(recipe(*said))
    step = int(re.search(r"Step (\d+)", str(told.value))[1])
    assert 0 < step < 30
    broken.write_bytes(whole)
    train(recipe(*said, "train.resume=auto"))
    straight = train(recipe(*said, f"output.dir={tmp_path / 'straight'}"))
    first, second = (unimodal.load(f).model.state_dict() for f in (tmp_path / "run" / "model", straight))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
