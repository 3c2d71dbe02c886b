"""Models made of the shapes world itself: one that is always right, and one that copies what it is shown."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from data_tools.shapes.oracle import read_scene
from data_tools.shapes.render import render
from data_tools.shapes.rows import Example
from data_tools.shapes.scene import Scene


def picture(scene: Scene) -> Image.Image:
    return Image.fromarray(render(scene))


@dataclass
class Reply:
    parts: tuple

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> list:
        return [part for part in self.parts if not isinstance(part, str)]


@dataclass
class Perfect:
    """Knows the truth of every example it may be asked, by what was said so far.

    It draws the world's own pictures, except that in conversations it answers from its own last picture.
    """

    known: list[Example]
    name: str = "perfect"
    asked: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.steps = {}
        for example in self.known:
            said = ()
            for step in example.steps:
                said += (step.text,)
                self.steps.setdefault(said, []).append(step)

    def _step(self, *said, shown=None):
        """The step of these words; examples that say the same are told apart by the picture shown."""
        steps = self.steps[said]
        if shown is not None:
            steps = [step for step in steps if step.given is not None and step.given == read_scene(shown)]
        return steps[0]

    def generate(self, prompt, seed=0):
        return [picture(self._step(text).scene) for text in prompt]

    def edit(self, image, instruction, seed=0):
        pairs = zip(image, instruction)
        return [picture(self._step(text, shown=np.asarray(before)).scene) for before, text in pairs]

    def answer(self, image, question, max_tokens=0, seed=0):
        steps = [self._step(text, shown=np.asarray(before)) for before, text in zip(image, question)]
        return [step.reply_after(step.scene, reasons=True) for step in steps]

    def complete(self, text, max_tokens=0, seed=0):
        plain = [example.row["text"] for example in self.known if "text" in example.row]
        return [next(full for full in plain if full.startswith(start))[len(start) :] for start in text]

    def chat_batch(self, rows, max_tokens=0, temperature=None, seed=0):
        return [self._reply(row) for row in rows]

    def _reply(self, row):
        said = tuple(self._text(message) for message in row["messages"] if message["role"] == "user")
        shown = None
        if row.get("images") and len(said) == 1:
            shown = np.asarray(row["images"][0])
        step = self._step(*said, shown=shown)
        if len(self.steps[said]) > 1 and shown is None and row.get("images"):
            first = read_scene(np.asarray(row["images"][0]))
            step = next(s for s in self.steps[said] if self._began_with(s, first))
        parts = [step.before(step.scene, reasons=True), picture(step.scene)] if step.draws else []
        last = step.reply_after(step.scene, reasons=True)
        return Reply(tuple(part for part in (*parts, last) if part != ""))

    def _began_with(self, step, first):
        for example in self.known:
            if any(s is step for s in example.steps):
                scenes = [s for one in example.steps for s in (one.given, one.scene) if s is not None]
                return scenes[0] == first
        return False

    @staticmethod
    def _text(message):
        content = message["content"]
        return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Copying:
    """Gives back what it is shown, draws an empty page, and says yes to everything."""

    name = "copying"

    def generate(self, prompt, seed=0):
        return [picture(Scene((), "white")) for _ in prompt]

    def edit(self, image, instruction, seed=0):
        return list(image)

    def answer(self, image, question, max_tokens=0, seed=0):
        return ["yes"] * len(question)

    def complete(self, text, max_tokens=0, seed=0):
        return ["yes"] * len(text)

    def chat_batch(self, rows, max_tokens=0, temperature=None, seed=0):
        return [Reply((row["images"][-1],) if row.get("images") else ("yes",)) for row in rows]
