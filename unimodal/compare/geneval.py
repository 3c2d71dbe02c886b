"""Pictures in GenEval's folder layout (Ghosh et al. 2023), so that its own and other scorers run on them.

FOLDER/00000/metadata.jsonl     {"tag", "include": [{"class", "count", "color", "position"}], "prompt"}
FOLDER/00000/samples/0000.png   one picture a training seed
"""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from data_tools.shapes.captions import Spec
from data_tools.shapes.language import Group
from data_tools.shapes.rows import Example

TAGS = {
    "single": "single_object",
    "two": "two_object",
    "counting": "counting",
    "colors": "colors",
    "position": "position",
    "attribute": "color_attr",
}


def metadata(example: Example) -> dict:
    """What GenEval's `metadata.jsonl` says of a text-to-image example."""
    (step,) = example.steps
    spec: Spec = step.draw
    include = []
    for group in spec.groups:
        wanted = {"class": group.shape or "shape", "count": group.count, "color": group.colour}
        wanted |= {"size": group.size, "cell": group.cell}
        include.append({key: value for key, value in wanted.items() if value is not None})
    if spec.relation:
        include[0]["position"] = [spec.relation, 1]
    found = {"tag": TAGS[example.kind], "include": include, "prompt": step.text}
    return found | ({"background": spec.background} if spec.background else {})


def spec_of(said: dict) -> Spec:
    """The caption's promise, from its metadata."""
    groups = tuple(
        Group(
            None if wanted["class"] == "shape" else wanted["class"],
            wanted.get("color"),
            wanted.get("size"),
            wanted.get("cell"),
            wanted["count"],
        )
        for wanted in said["include"]
    )
    relation = said["include"][0].get("position", [None])[0]
    return Spec(groups, relation, said.get("background"))


def write_pictures(
    folder: Path, examples: Sequence[Example], pictures: Sequence[Image.Image], sample: int
) -> None:
    """Write picture `sample` of every prompt."""
    for number, (example, picture) in enumerate(zip(examples, pictures, strict=True)):
        place = folder / f"{number:05d}"
        (place / "samples").mkdir(parents=True, exist_ok=True)
        (place / "metadata.jsonl").write_text(json.dumps(metadata(example)) + "\n", encoding="utf-8")
        picture.save(place / "samples" / f"{sample:04d}.png")
