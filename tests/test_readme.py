"""What the README shows must work: its commands parse, its targets and recipes exist, its code runs."""

import json
import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest
from typer.main import get_command

from unimodal.cli import app
from unimodal.commands.recipes import find_recipe, first_line, shipped_recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command of the console blocks, pipes taken apart, and those shown in the table of verbs."""
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    shown = [part.strip() for line in lines for part in line.split("|")]
    return shown + [verb.replace("[", "").replace("]", "").replace(" ...", "") for verb in verbs()]


def verbs() -> list[str]:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `unimodal")]
    return [verb for row in rows for verb in re.findall(r"`([^`]+)`", row)]


def parse(command, args: list[str], name: str, parent=None) -> tuple[list[str], dict]:
    """Parse as the command line would, without running anything: names of commands, values of the last."""
    context = command.make_context(name, args, parent=parent)
    if not hasattr(command, "resolve_command"):
        return [name], context.params
    words = [*getattr(context, "_protected_args", []), *context.args]
    sub_name, sub, rest = command.resolve_command(context, words)
    names, values = parse(sub, rest, sub_name, context)
    return [name, *names], values


def not_understood(line: str) -> list[str]:
    """Words of a command line that are neither a command, nor an option, nor the value of one."""
    words = shlex.split(line)
    names, params = parse(get_command(app), words[1:], words[0])
    values = [value if isinstance(value, list | tuple) else [value] for value in params.values()]
    understood = {*names, *(str(part) for parts in values for part in parts)}
    return [word for word in words if not word.startswith("-") and word not in understood]


@pytest.mark.parametrize("line", [c for c in commands() if c.startswith("unimodal ")])
def test_commands_parse(line):
    assert not_understood(line) == []


def test_a_wrong_command_would_not_parse():
    from typer import BadParameter
    from typer._click.exceptions import UsageError

    for line in "chat --no-such-option", "generate", "no-such-verb":
        with pytest.raises((UsageError, BadParameter)):
            parse(get_command(app), shlex.split(line), "unimodal")


def test_every_verb_is_in_the_table():
    group = get_command(app)
    shown = {verb.split()[1] for verb in verbs()}
    assert shown == set(group.commands)


def test_every_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    asked = set(re.findall(r"`make (\w+)`|^\$ make (\w+)", README, re.MULTILINE))
    assert {"demo", "test"} <= {a or b for a, b in asked} <= targets


def test_the_test_command_is_what_continuous_integration_runs():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.splitlines()[-1] == "make test"


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target and not target.startswith("docs/images/"):
            assert (document.parent / target).exists(), target


def test_the_tests_that_documents_name_are_there():
    named = {
        (file, test)
        for path in DOCS
        for file, test in re.findall(r"`(tests/\S+\.py)::(\w+)`", path.read_text())
    }
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), (file, test)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_is_checked_and_has_a_header(name):
    from unimodal.training.config import load_recipe

    path, verb = find_recipe(name), "train"
    if name.startswith("compare/"):
        from unimodal.compare.plan import load_comparison

        verb = "compare"
        for entrant in load_comparison(path).entrants:
            beside = path.parent / entrant.recipe
            load_recipe(beside if beside.is_file() else find_recipe(entrant.recipe), entrant.overrides)
    else:
        load_recipe(path)
    header = list(takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()))
    assert first_line(path)
    assert re.search(rf"unimodal {verb} (recipes/)?{name}\b", "\n".join(header)), (
        "the header says how to run it"
    )


def test_recipes_and_overrides_of_the_readme_are_real(tmp_path):
    from unimodal.training.config import load_recipe

    copied = [
        shlex.split(c)[3] for c in commands() if c.startswith("unimodal recipes cp ") and "NAME" not in c
    ]
    assert copied
    for line in commands():
        if line.startswith("unimodal train my.yaml"):
            load_recipe(find_recipe(copied[0]), shlex.split(line)[3:])


@pytest.mark.parametrize("document", ["README.md", "unimodal/shipped/shapes-base/README.md"])
def test_scores_are_those_that_eval_wrote(document):
    from unimodal.evaluation.markdown import read_reports, table

    files = [ROOT / "docs" / "scores" / f"shapes-base.{split}.json" for split in ("val", "unseen")]
    assert table(read_reports(files)) in (ROOT / document).read_text(encoding="utf-8")


def test_rows_of_the_readme_are_rows(tmp_path):
    from PIL import Image

    from unimodal.data.check import check

    rows = [line for block in blocks("json") for line in block.splitlines()]
    for name in {name for row in rows for name in json.loads(row).get("images", [])}:
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    report = check(tmp_path / "rows.jsonl")
    assert (report.errors, report.rows) == ([], 4)
    assert set(report.tasks) == {"t2i", "edit", "vqa", "text"}


def test_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    import unimodal
    from tests.chat.fake import FakeUnimodal

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unimodal, "load", FakeUnimodal, raising=False)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "before.png").is_file()
    assert capsys.readouterr().out
