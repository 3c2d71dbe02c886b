"""An entrant in two stages: first a part of it learns, then more of it, from where the first stage ended.

So are external models trained where the denoiser was there before: first the connector, then the denoiser too
(OpenUni, Wu et al. 2025).  The stages share the entrant's budget, and the second reads on where the first
stopped.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from unimodal.compare.plan import Entrant
from unimodal.errors import UserError
from unimodal.training.checkpoint import complete_checkpoints
from unimodal.training.config import Recipe, parse_recipe

FIRST = "first"  # folder of the first stage, in that of the entrant's run
FRESH = 1000  # what the second stage adds to the seed of all noise: far from the seeds of other runs


def first_of(recipe: Recipe, place: Path) -> Recipe:
    """The recipe of the first stage of the run in a folder."""
    output = recipe.output.model_copy(update={"dir": place / FIRST / "run"})
    return recipe.model_copy(update={"output": output})


def second_of(recipe: Recipe, entrant: Entrant, begun: Path | None) -> Recipe:
    """The recipe with the overrides of the second stage.

    begun  the model it goes on from; None: all its parts are made anew, to count what a step of it costs
    Raises UserError if the recipe is not that of an external model, or an override is wrong.
    """
    from unimodal.training.external import PARTS, ExternalModelSection

    if not isinstance(recipe.model, ExternalModelSection):
        raise UserError(f"entrant {entrant.name}: `then` is for recipes of external models (kind: external).")
    config = OmegaConf.create(recipe.to_yaml())
    config.merge_with_dotlist(entrant.then.overrides)
    raw = OmegaConf.to_container(config, resolve=True)
    raw["train"]["seed"] += FRESH
    if begun is not None:
        raw["model"] = {key: value for key, value in raw["model"].items() if key not in PARTS}
        raw["model"]["init_from"] = str(begun)
    return parse_recipe(raw, f"entrant {entrant.name}, then", entrant.then.overrides)


def rows_taken(run: Path) -> int:
    """The first row behind all that a finished run took."""
    state = _end_of(run)
    return max(shard["next"] for rank in state["data"] for shard in rank["shards"] if shard is not None)


def lost_of(run: Path) -> tuple[int, int]:
    """Steps that a finished run took in vain, before it went back to a checkpoint, and how often it did."""
    guard = _end_of(run).get("guard") or {"lost": 0, "returns": 0}
    return guard["lost"], guard["returns"]


def _end_of(run: Path) -> dict[str, Any]:
    return json.loads((complete_checkpoints(run)[-1] / "resume" / "state.json").read_text(encoding="utf-8"))
