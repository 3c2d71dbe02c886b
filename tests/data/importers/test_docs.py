"""The page about data shows what there is: its commands parse, each importer has its section and fields."""

import re
import shlex
from pathlib import Path

import pytest

from tests.test_readme import parse
from unimodal.cli import app
from unimodal.data.importers import IMPORTERS

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (unimodal .*)$", PAGE, re.MULTILINE)
SECTIONS = dict(re.findall(r"^### `([\w-]+)`.*?\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line):
    from typer.main import get_command

    parse(get_command(app), shlex.split(line)[1:], "unimodal")


def test_every_importer_is_shown():
    assert set(SECTIONS) == set(IMPORTERS)
    for name, section in SECTIONS.items():
        assert f"--from {name} " in section
        if name not in ("imagefolder", "webdataset"):  # these take the fields of the columns
            assert all(f"`{field}`" in section for field in IMPORTERS[name].fields), name
