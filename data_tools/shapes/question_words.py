"""Questions in words, and scenes told in words so that they can be answered."""

from dataclasses import replace
from random import Random

from data_tools.shapes import open_questions
from data_tools.shapes.language import (
    IT,
    OPPOSITE,
    RELATIONS,
    Group,
    a,
    listed,
    noun,
    related,
    relation_words,
    the,
)
from data_tools.shapes.question import Question
from data_tools.shapes.scene import Scene


def ask(rng: Random, question: Question) -> str:
    """The question in words."""
    q = question
    first, second = the(q.a), the(q.b)
    if q.kind == "colour":
        forms = (f"what color is {first}?", f"what color is {first}?", f"which color does {first} have?")
    elif q.kind == "shape":
        forms = (f"what shape is {first}?", f"what is {first}?", f"which shape is {first}?")
        if q.a != IT:
            forms = (
                f"what shape is {_thing(first)}?",
                f"what is {first}?",
                f"which shape is {_thing(first)}?",
            )
    elif q.kind == "position":
        forms = (f"where is {first}?",)
    elif q.kind == "background":
        forms = ("what color is the background?", "which background is it?")
    elif q.kind in open_questions.ANSWERS:
        forms = open_questions.forms(q)
    elif q.kind == "count":
        many = noun(replace(q.a, count=2))
        forms = (f"how many {many} are there?", f"how many {many} are there?", f"how many {many} do you see?")
    elif q.kind == "existence":
        forms = (f"is there {a(q.a)}?", f"is there {a(q.a)}?", f"do you see {a(q.a)}?")
    elif q.kind == "relation":
        forms = (f"is {first} {relation_words(q.word, rng)} {second}?",)
    elif q.word == "more":
        forms = (f"are there more {noun(replace(q.a, count=2))} than {noun(replace(q.b, count=2))}?",)
    elif q.word in ("larger", "smaller"):
        forms = (f"is {first} {q.word} than {second}?",)
    else:
        word = "color" if q.word == "colour" else q.word
        forms = (
            f"are {first} and {second} the same {word}?",
            f"do {first} and {second} have the same {word}?",
        )
    return rng.choice(forms)


def _thing(phrase: str) -> str:
    """ "the red shape" asked for its shape reads better as "the red thing"."""
    return phrase.replace(" shape", " thing")


def tell(rng: Random, scene: Scene, question: Question) -> str:
    """The scene in words, with whatever the question needs to be answered and little else."""
    q = question
    named = [q.a, q.b]
    sizes = q.word in ("larger", "smaller", "size") or q.kind in open_questions.SIZED
    sizes = sizes or any(group.size for group in named) or rng.random() < 0.15
    cells = q.kind in ("relation", "position", *open_questions.PLACED)
    cells = cells or any(group.cell is not None for group in named) or rng.random() < 0.15
    if q.kind == "relation" and len(scene.objects) == 2 and rng.random() < 0.5:
        one, other = rng.sample(scene.objects, 2)
        true = [name for name in RELATIONS if related(one, name, other)]
        axis = [name for name in true if {name, OPPOSITE[name]} & {q.word}]
        if axis:
            groups = [Group(t.shape, t.colour, t.size if sizes else None) for t in (one, other)]
            words = f"{a(groups[0])} {relation_words(axis[0], rng)} {a(groups[1])}"
            return _there(words, False)
    groups = []
    for thing in rng.sample(scene.objects, len(scene.objects)):
        group = Group(thing.shape, thing.colour, thing.size if sizes else None, thing.cell if cells else None)
        alike = [k for k, other in enumerate(groups) if replace(other, count=1) == group]
        if alike:
            groups[alike[0]] = replace(group, count=groups[alike[0]].count + 1)
        else:
            groups.append(group)
    words = listed([a(group) for group in groups])
    if q.kind in ("background", "list") or rng.random() < 0.15:
        words += f" on a {scene.background} background"
    return _there(words, groups[0].count > 1)


def _there(words: str, many: bool) -> str:
    return f"there {'are' if many else 'is'} {words}."
