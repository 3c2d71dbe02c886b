"""What `make demo` runs: the toolkit's main job in small, without asking anything.

The shipped model draws, edits, answers and writes; then it is fine-tuned for two minutes on a word it has
never seen, and judged before and after, on the new word and on what it knew already.
"""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unimodal.chat.session import Session, Settings
from unimodal.chat.terminal import Screen, printable
from unimodal.commands.recipes import find_recipe
from unimodal.errors import UserError

if TYPE_CHECKING:
    from data_tools.shapes.rows import Example

MODEL = "shapes-base"
FOLDER = Path("demo")
SEED = 7
ROWS = 300  # that teach the new word
JUDGED = 32  # prompts of each kind, before and after

DRAW = (
    "a red circle left of a blue square",
    "three yellow stars on a black background",
    "a large green heart and a small pink ring",
)
EDITS = ("make the circle purple", "use a gray background", "move the ring to the top left")
ASK = ("what color is the circle?", "how many stars are there?", "is the heart larger than the ring?")
WRITE = "there is a small red cross below a large cyan triangle. is the red cross above the cyan triangle?"
TALK = (
    "draw two orange diamonds",
    "now make the background gray",
    "how many shapes are there?",
    "what is the weather?",
)

Tiles = list[tuple[Image.Image, str]]


def tour(model: Any, console: Console, show: Callable[[Image.Image], None]) -> Tiles:
    """Every verb once, on fixed prompts; prints answers, shows pictures, returns them with captions."""
    from unimodal.generation.verbs import Picture, Piece

    tiles: Tiles = []
    drawn = model.generate(list(DRAW), seed=SEED)
    edited = model.edit(drawn, list(EDITS), seed=SEED)
    answers = model.answer(edited, list(ASK))
    for picture, prompt, after, instruction, question, answer in zip(
        drawn, DRAW, edited, EDITS, ASK, answers
    ):
        for image, verb, words in (picture, "draw", prompt), (after, "edit", instruction):
            console.print(f"[bold]{verb}[/]  {words}")
            show(image)
            tiles.append((image, words))
        console.print(f"[bold]ask[/]   {question} [green]{escape(printable(answer))}[/]")
    session = Session(model, Settings(seed=SEED))
    for verb, said in (("write", WRITE), *(("chat", said) for said in TALK)):
        events = list(session.say(said))
        text = "".join(event.text for event in events if isinstance(event, Piece))
        console.print(f"[bold]{verb:5}[/] {said} [green]{escape(printable(text))}[/]")
        for event in events:
            if isinstance(event, Picture):
                show(event.image)
                tiles.append((event.image, said))
    return tiles


def judge(
    model: Any, old: list["Example"], new: list["Example"], questions: list["Example"]
) -> dict[str, tuple]:
    """How many drawings of old and new words, and answers to old questions, are right; pictures, if any.

    Pictures are read back by the oracle of the shapes world, and must hold exactly what was asked for.
    """
    import numpy as np

    from data_tools.shapes.novel import read_novel
    from data_tools.shapes.oracle import Unreadable
    from data_tools.shapes.reasons import final

    def right(examples: list["Example"]) -> tuple[int, list[Image.Image]]:
        steps = [example.steps[0] for example in examples]
        pictures = model.generate([step.text for step in steps], seed=range(SEED, SEED + len(steps)))
        scenes = [read_novel(np.asarray(picture)) for picture in pictures]
        good = [not isinstance(s, Unreadable) and step.drawn_right(None, s) for step, s in zip(steps, scenes)]
        return sum(good), pictures

    asked = [example.steps[0] for example in questions]
    shown = [Image.fromarray(example.row["images"][0]) for example in questions]
    answers = model.answer(shown, [step.text for step in asked], max_tokens=64)
    known = sum(final(answer) == step.words(step.scene) for answer, step in zip(answers, asked))
    return {"new": right(new), "old": right(old), "questions": (known, [])}


def teach(model: Any, console: Console) -> tuple[Path, Tiles]:
    """Fine-tune on the new word, print scores before and after; the model's folder, and pictures of both."""
    from data_tools.shapes import novel
    from data_tools.shapes.rows import example
    from unimodal import load
    from unimodal.training.config import load_recipe
    from unimodal.training.loop import train

    old = [example("t2i", "val", SEED, i) for i in range(JUDGED)]
    questions = [example("vqa", "val", SEED, i) for i in range(JUDGED)]
    new = [novel.novel_example("t2i", "val", SEED, i) for i in range(JUDGED)]
    console.rule(f"a word it has never seen: {novel.SHAPE}")
    before = judge(model, old, new, questions)
    rows, output = FOLDER / "rows", FOLDER / "new-word"
    for folder in rows, output:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier demo
    novel.make_novel(rows, ROWS)
    start = time.perf_counter()
    recipe = load_recipe(
        find_recipe("demo"), [f"data.sources.0.path={rows}/train.jsonl", f"output.dir={output}"]
    )
    folder = train(recipe)
    seconds = time.perf_counter() - start
    after = judge(load(str(folder)), old, new, questions)
    table = Table("right, judged pixel by pixel", "before", f"after {seconds:.0f} s", header_style="bold")
    for name, key in (
        (f"draws {novel.SHAPE} as told, prompts held out", "new"),
        ("draws what it knew before", "old"),
        ("answers what it knew before", "questions"),
    ):
        table.add_row(name, *(f"{scores[key][0]} of {JUDGED}" for scores in (before, after)))
    console.print(table)
    prompts = [one.steps[0].text for one in new]
    tiles = [
        (picture, f"{when}: {prompt}")
        for when, scores in (("before", before), ("after", after))
        for picture, prompt in zip(scores["new"][1][:4], prompts)
    ]
    return folder, tiles


def main() -> None:
    """Run the demo in the working folder; everything it writes is under `demo/`."""
    from unimodal import load
    from unimodal.evaluation.sheet import sheet

    screen = Screen(folder=FOLDER)
    console, inline = screen.console, screen.inline()

    def show(image: Image.Image) -> None:
        if inline:
            console.print(inline(image))

    start = time.perf_counter()
    model = load(MODEL)
    FOLDER.mkdir(exist_ok=True)
    console.rule(f"{model.name}, {model.size / 1e6:.1f} M parameters")
    tiles = tour(model, console, show)
    folder, taught = teach(model, console)
    for image, words in taught:
        console.print(words)
        show(image)
    path = FOLDER / "sheet.png"
    sheet(tiles + taught, 4).save(path)
    console.rule(f"done in {time.perf_counter() - start:.0f} s")
    console.print(f"All pictures: {path}")
    console.print("Talk with the shipped model:   .venv/bin/unimodal chat", markup=False)
    console.print(f"... and with the one just taught: .venv/bin/unimodal chat {folder}", markup=False)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
