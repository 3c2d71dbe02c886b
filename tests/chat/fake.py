"""A model without weights: it writes words one by one and draws squares, as a loaded model would."""

from collections.abc import Iterator
from types import SimpleNamespace

from PIL import Image

from unimodal.errors import UserError
from unimodal.generation.verbs import Drawing, Event, Picture, Piece, Reply


class FakeUnimodal:
    """Draws when told to draw or change something, else counts what it sees.  Remembers its calls."""

    def __init__(self, name: str = "fake", stop_at: str = ""):
        self.name = name
        self.size = 12_345_678
        self.config = SimpleNamespace(path="flow")
        self.calls: list[tuple[str, dict]] = []
        self.stop_at = stop_at  # the word before which Ctrl-C is pressed

    def stream(self, messages: list[dict], images: list, **options) -> Iterator[Event]:
        marks = sum(m["content"].count("<image>") for m in messages)
        assert marks == len(images), "a row has one mark for each picture"
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]
        self.calls.append(("stream", {"messages": messages, "images": images, **options}))
        asked = messages[-1]["content"]
        if "refuse" in asked:
            raise UserError("the conversation is too long for this model; /new starts another")
        if "draw" in asked or "make" in asked:
            for step in range(1, 4):
                if self.stop_at == "picture":
                    raise KeyboardInterrupt
                yield Drawing(step, 3)
            yield Picture(Image.new("RGB", (64, 64), self.colour(asked)))
        else:
            for word in ["there ", "are ", str(len(images)), " pictures."]:
                if word.strip() == self.stop_at:
                    raise KeyboardInterrupt
                yield Piece(word)

    def generate(self, prompt: str | list[str], n: int = 1, **options) -> list[Image.Image]:
        self.calls.append(("generate", {"prompt": prompt, "n": n, **options}))
        prompts = [prompt] if isinstance(prompt, str) else prompt
        return [Image.new("RGB", (64, 64), self.colour(text)) for text in prompts for _ in range(n)]

    def edit(self, image: Image.Image, instruction: str, **options) -> list[Image.Image]:
        self.calls.append(("edit", {"image": image, "instruction": instruction, **options}))
        return [Image.new("RGB", image.size, self.colour(instruction))]

    def answer(self, image: Image.Image, question: str, **options) -> str:
        self.calls.append(("answer", {"image": image, "question": question, **options}))
        return "two"

    def complete(self, text: str, **options) -> str:
        self.calls.append(("complete", {"text": text, **options}))
        return text + " and so on"

    def chat(self, messages: list[dict], images: tuple = (), **options) -> Reply:
        events = list(self.stream(messages, list(images), **options))
        return Reply(
            tuple(e.text if isinstance(e, Piece) else e.image for e in events if not isinstance(e, Drawing))
        )

    @staticmethod
    def colour(text: str) -> str:
        return next((c for c in ("red", "green", "blue") if c in text), "grey")
