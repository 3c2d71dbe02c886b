"""GSM8K to rows of text: the question, then the worked answer that ends in `#### ` and the number.

The corpus marks each calculation for a calculator, as in `48/2 = <<48/2=24>>24`; a model without one reads
the sum twice, so the marks are taken out unless asked for.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from data_tools.real import (
    SPLITS,
    Example,
    Made,
    ask,
    check_share,
    given,
    held_out,
    of_another_shape,
    write_meta,
    write_split,
)
from data_tools.shapes.build import empty_folder

FILE = "train.jsonl"
WHAT = f"GSM8K's {FILE}, one object with question and answer a line"
ADDRESS = (
    "https://github.com/openai/grade-school-math (grade_school_math/data/train.jsonl; put it in a folder)"
)
LICENCE = "MIT, copyright 2021 OpenAI"
MARKED = re.compile(r"<<[^<>]*>>")
FINAL = re.compile(r"\n#### (\S.*)\Z")


def make_gsm8k(
    folder: str | Path, out: str | Path, calculations: bool = False, val: float = 0.1, seed: int = 0
) -> Made:
    """Write rows from `folder`/train.jsonl, split by question.

    calculations  keep the corpus' marks `<<48/2=24>>`
    val           share of questions held out, told from each question's own hash
    Truth: kind "text/gsm8k", the final answer as text, and the line of the corpus.
    Raises UserError if the file is missing or a line of another shape.
    """
    check_share(val)
    folder = given(folder, [FILE], WHAT, ADDRESS)
    problems = list(read_problems(folder / FILE))
    out = empty_folder(Path(out))
    made = Made()
    seen: Counter = Counter()
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for line, question, answer, final in problems:
        key = " ".join(question.split())
        seen[key] += 1
        if seen[key] > 1:
            made.left_out.setdefault("a question asked before", []).append(f"line {line}")
            continue
        text = answer if calculations else MARKED.sub("", answer)
        truth = {"kind": "text/gsm8k", "answer": final, "line": line}
        splits["val" if held_out(key, val, seed) else "train"].append((ask(question, text), truth))
    for split, examples in splits.items():
        made.rows[split] = write_split(out, split, examples)
    write_meta(out, made, ADDRESS, LICENCE, calculations=calculations, val=val, seed=seed)
    return made


def read_problems(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """(line number, question, answer, final answer) of every line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                problem = json.loads(line)
                question, answer = problem["question"].strip(), problem["answer"].strip()
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise of_another_shape(f"{path}:{number}", f"found {line!r:.60}", WHAT, ADDRESS) from error
            final = FINAL.search(answer)
            if not question or final is None or "<<" in MARKED.sub("", answer):
                expected = "a question, and an answer with closed marks << >> whose last line is #### NUMBER"
                raise of_another_shape(f"{path}:{number}", f"found {answer[-60:]!r}", expected, ADDRESS)
            yield number, question, answer, final[1].strip()
