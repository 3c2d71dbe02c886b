"""Conversations turn by turn: the model goes on from its own pictures, and is right only if right to the end.

What a later turn asks for is judged on the scene that the oracle reads in the model's own last picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from data_tools.shapes.oracle import Unreadable, read_scene
from data_tools.shapes.reasons import final
from data_tools.shapes.render import CANVAS, render
from data_tools.shapes.rows import Example
from data_tools.shapes.scene import Scene
from data_tools.shapes.steps import Step
from unimodal.evaluation.report import Case, Tile

REPLY_TOKENS = 160


@dataclass(eq=False)
class _Talk:
    """A conversation on its way: what was said, the scene of its last picture, and what went wrong."""

    asked: Example
    messages: list[dict] = field(default_factory=list)
    images: list[Image.Image] = field(default_factory=list)
    scene: Scene | None = None
    wrong: str = ""
    tiles: list[Tile] = field(default_factory=list)

    def say(self, step: Step, canvas: int) -> None:
        """Add the user's turn."""
        content: list[dict] = [{"type": "text", "text": step.text}]
        if step.given is not None:
            content.insert(0, {"type": "image"})
            self.images.append(Image.fromarray(render(step.given, canvas)))
            self.scene = step.given
            self.tiles.append((self.images[-1], "shown"))
        if step.told:
            self.scene = step.scene
        self.messages.append({"role": "user", "content": content})

    def hear(self, step: Step, reply: Any) -> None:
        """Add the assistant's turn and judge it."""
        pictures = reply.images
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
            for part in reply.parts
        ]
        self.messages.append({"role": "assistant", "content": content})
        self.images += pictures
        self.wrong = self._judge(step, reply.parts, pictures)
        self.tiles += [(picture, step.text) for picture in pictures]
        if self.wrong and self.tiles:
            picture, words = self.tiles[-1]
            said = "" if pictures else f"{step.text}\n{reply.text}\n"
            self.tiles[-1] = (picture, f"{words}\n{said}[{self.wrong}]")

    def _judge(self, step: Step, parts: Sequence[str | Image.Image], pictures: list[Image.Image]) -> str:
        """What is wrong, or an empty string.  Words before a picture, and reasons, do not count."""
        if len(pictures) != step.draws:
            return "drew without being asked" if pictures else "drew nothing" if step.draws else "drew twice"
        if step.draws:
            scene = read_scene(np.asarray(pictures[0].convert("RGB")))
            if isinstance(scene, Unreadable):
                return scene.reason
            before, self.scene = self.scene, scene
            if not step.drawn_right(before, scene):
                return "not what was asked"
            if step.after is None:
                return ""
        wanted = step.words(self.scene)
        last = parts[-1] if parts and isinstance(parts[-1], str) else ""
        said = final(last) if step.question or step.after else last.strip()
        return "" if said.lower().rstrip(".") == wanted.lower().rstrip(".") else f"right: {wanted}"


def talk_through(model: Any, asked: list[Example], seed: int, measured: dict) -> list[Case]:
    """Run conversations side by side, each until its end or its first wrong turn."""
    canvas = getattr(getattr(model, "config", None), "image_size", None) or CANVAS
    talks = [_Talk(one) for one in asked]
    for turn in range(max(len(one.steps) for one in asked)):
        going = [talk for talk in talks if not talk.wrong and turn < len(talk.asked.steps)]
        if not going:
            break
        for talk in going:
            talk.say(talk.asked.steps[turn], canvas)
        rows = [{"messages": talk.messages, "images": talk.images} for talk in going]
        chance = [seed + len(talks) * turn + k for k, talk in enumerate(talks) if talk in going]
        replies = model.chat_batch(rows, max_tokens=REPLY_TOKENS, temperature=0.0, seed=chance)
        for talk, reply in zip(going, replies):
            talk.hear(talk.asked.steps[turn], reply)
    return [Case(f"chat/{talk.asked.kind}", not talk.wrong, tuple(talk.tiles)) for talk in talks]
