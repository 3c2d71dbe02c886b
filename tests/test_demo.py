"""`make demo`, with fewer rows and steps: it draws, edits, answers, writes, learns and says how to go on."""

import yaml
from PIL import Image

import unimodal
from unimodal import demo
from unimodal.commands.recipes import find_recipe


def test_the_demo_goes_through(tmp_path, monkeypatch, capsys):
    recipe = yaml.safe_load(find_recipe("demo").read_text())
    recipe["train"] |= {"steps": 2, "warmup_steps": 0, "threads": 1}
    recipe["data"]["workers"] = 0
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    monkeypatch.setattr(demo, "find_recipe", lambda name: tmp_path / "recipe.yaml")
    monkeypatch.setattr(demo, "ROWS", 12)
    monkeypatch.setattr(demo, "JUDGED", 2)
    monkeypatch.chdir(tmp_path)
    demo.main()
    told = " ".join(capsys.readouterr().out.split())
    for prompt in (*demo.DRAW, *demo.EDITS, *demo.ASK, demo.WRITE, *demo.TALK):
        assert prompt in told
    assert "answers what it knew before" in told
    assert ".venv/bin/unimodal chat demo/new-word/model" in told
    sheet = Image.open(tmp_path / "demo" / "sheet.png")
    assert min(sheet.size) > 300
    assert len(sheet.convert("RGB").getcolors(2**24)) > 100
    assert unimodal.load(tmp_path / "demo" / "new-word" / "model").size > 4e6
