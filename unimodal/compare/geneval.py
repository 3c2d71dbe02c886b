"""Pictures in GenEval's folder layout (Ghosh et al. 2023), so that its own and other scorers run on them.

FOLDER/00000/metadata.jsonl     {"tag", "include", "exclude", "prompt"}
FOLDER/00000/samples/0000.png   one picture a training seed

    include  [{"class", "count", "color", "position"}, ...]; `position` is [relation, number of the group that
             it is to], which in GenEval must stand before the group that has it
    exclude  [{"class", "count"}, ...] of counting: so many there must not be
"""

import json
from collections import Counter
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
    include, counts = [], Counter()
    for group in spec.groups:
        counts[group.shape or "shape"] += group.count
        wanted = {"class": group.shape or "shape", "count": group.count, "color": group.colour}
        wanted |= {"size": group.size, "cell": group.cell}
        include.append({key: value for key, value in wanted.items() if value is not None})
    if spec.relation:
        include.reverse()
        include[1]["position"] = [spec.relation, 0]
    found = {"tag": TAGS[example.kind], "include": include}
    if example.kind == "counting":
        found["exclude"] = [{"class": name, "count": count + 1} for name, count in counts.items()]
    found["prompt"] = step.text
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
    relation = said["include"][-1].get("position", [None])[0]
    return Spec(groups[::-1] if relation else groups, relation, said.get("background"))


def write_pictures(
    folder: Path, examples: Sequence[Example], pictures: Sequence[Image.Image], sample: int
) -> None:
    """Write picture `sample` of every prompt."""
    for number, (example, picture) in enumerate(zip(examples, pictures, strict=True)):
        place = folder / f"{number:05d}"
        (place / "samples").mkdir(parents=True, exist_ok=True)
        (place / "metadata.jsonl").write_text(json.dumps(metadata(example)) + "\n", encoding="utf-8")
        picture.save(place / "samples" / f"{sample:04d}.png")
