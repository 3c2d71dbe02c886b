"""The recipes of the comparison differ in how pictures are made, and in nothing else."""

import pytest

from unimodal.commands.recipes import find_recipe, shipped_recipes
from unimodal.training.config import load_recipe

PATHS = [name for name in shipped_recipes() if name.startswith("paths/")]
HOW = {"path", "path_options", "codec", "patch_size", "experts", "freeze", "times", "sampling", "loss"}


@pytest.mark.parametrize("name", PATHS)
def test_all_have_the_same_rows_operations_and_beginning(name):
    recipe, flow = (load_recipe(find_recipe(one)) for one in (name, "paths/flow"))
    assert recipe.data == flow.data
    assert recipe.train == flow.train and recipe.train.flops == 1.8e14
    assert recipe.output.dir.name == name.removeprefix("paths/")
    said = [one.model.model_dump(exclude=HOW) for one in (recipe, flow)]
    assert said[0] == said[1]
    assert recipe.model.loss.text == flow.model.loss.text
