"""One entrant with one seed, in processes of its own: train, judge, measure.

    python -m unimodal.compare.entrant train FOLDER PARENT
    python -m unimodal.compare.entrant judge FOLDER PARENT
    python -m unimodal.compare.entrant measure FOLDER PARENT

Processes of its own keep training's memory out of a picture's figures, and a failure to the entrant that
has it.  PARENT is the process that started this one, which does not outlive it.  FOLDER holds job.json,
facts.json and recipe.yaml; a part's file (DONE) appears when the part is done and not before.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unimodal.compare.alone import ENDING, alone_in, end_with
from unimodal.compare.kept import keep, read
from unimodal.compare.stages import FIRST, lost_of, rows_taken
from unimodal.errors import UserError

TASKS = ("t2i", "edit", "vqa", "text", "chat")
WORDS = ("vqa", "text")  # the tasks that measure understanding
DONE = {"train": "training.json", "judge": "judged.json", "measure": "costs.json"}


@dataclass(frozen=True, slots=True)
class Job:
    """What a process is to do.

    model     a finished model to judge; None: train recipe.yaml first
    mark      of its weights: another, and it is judged again
    parts     what the model starts from, by key, whose own training is no part of the comparison
    tasks     parts of the shapes suite
    pictures  folder for GenEval's layout, or None;  sample  the number of its pictures there
    """

    name: str
    family: str
    seed: int
    split: str
    n: int
    judge_seed: int
    tasks: tuple[str, ...] = TASKS
    model: str | None = None
    mark: str | None = None
    parts: dict[str, str] = field(default_factory=dict)
    pictures: str | None = None
    sample: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON, as it reads back."""
        return json.loads(json.dumps(asdict(self)))


def train_job(folder: Path) -> None:
    """Train the folder's recipe, or go on with it, and write training.json: the model and what it took."""
    import torch

    from unimodal.training.config import load_recipe
    from unimodal.training.loop import train

    recipe = load_recipe(folder / "recipe.yaml")
    if (folder / FIRST).is_dir():
        recipe.data.first_row += rows_taken(folder / FIRST / "run")
    model = train(recipe)
    facts = read(folder / "facts.json")
    lines = (recipe.output.dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    if entries[-1]["step"] < recipe.train.steps:
        raise UserError(f"stopped after step {entries[-1]['step']} of {recipe.train.steps}")
    steps = [entry for entry in entries if "loss" in entry]  # the others are evaluations
    lost, returns = lost_of(recipe.output.dir)
    took = {
        "model": str(model),
        "trained": facts["trained"],
        "steps": recipe.train.steps,
        "returns": returns,
        "flops": (recipe.train.steps + lost) * facts["step_flops"],
        "seconds": entries[-1]["seconds"],
        "memory_gb": max(entry["memory_gb"] for entry in steps),
        "threads": torch.get_num_threads(),
        "rows": {name: sum(entry["rows"][name] for entry in steps) for name in steps[0]["rows"]},
    }
    if (folder / FIRST / "training.json").is_file():
        took = _both_stages(read(folder / FIRST / "training.json"), took)
    took["rows_per_second"] = took["rows"]["read"] / took["seconds"]
    keep(folder / "training.json", took)


def _both_stages(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """What both stages of an entrant took together."""
    took = second | {key: first[key] + second[key] for key in ("steps", "returns", "flops", "seconds")}
    took |= {key: max(first[key], second[key]) for key in ("trained", "memory_gb")}
    took["rows"] = {name: first["rows"][name] + count for name, count in second["rows"].items()}
    return took


def judge_job(folder: Path) -> None:
    """Judge the model of a folder's job and write judged.json.

    total    parameters
    scores   by name
    cases    {score: [right, ...]}
    answers  {score: [what it said, ...]} of tasks that measure understanding
    """
    from unimodal.evaluation.run import evaluate

    job = Job(**read(folder / "job.json"))
    model = _model_of(job, folder)
    report = evaluate(model, "shapes", job.split, job.n, job.judge_seed, tasks=tuple(job.tasks))
    judged: dict[str, Any] = {"total": model.size, "cases": {}, "answers": {}}
    judged["scores"] = {name: score.as_dict() for name, score in report.scores.items()}
    for case in report.cases:
        judged["cases"].setdefault(case.name, []).append(case.right)
        if case.name.split("/")[0] in WORDS:
            judged["answers"].setdefault(case.name, []).append(case.said)
    if job.pictures:
        _keep_pictures(job, model, report)
    keep(folder / "judged.json", judged)


def measure_job(folder: Path) -> None:
    """Measure what a picture costs, and what kept conditions spare, and write costs.json."""
    from unimodal.compare.measure import cache_gain, picture_costs

    model = _model_of(Job(**read(folder / "job.json")), folder)
    costs = picture_costs(model)
    # Last, since what it allocates must not count as a picture's.
    gain = cache_gain(folder / "recipe.yaml", model.model.device)
    keep(folder / "costs.json", costs | {"condition_cache": gain})


def _model_of(job: Job, folder: Path) -> Any:
    from unimodal.generation.load import load

    return load(job.model or read(folder / "training.json")["model"])


def result_at(folder: Path) -> dict[str, Any]:
    """All that a folder's parts have found so far.

    name, family, seed, params {trained, total}, parts, training; what judged.json has; and what costs.json
    has, if the folder was measured
    """
    job, judged = Job(**read(folder / "job.json")), read(folder / "judged.json")
    took = {"trained": 0} if job.model else read(folder / "training.json")
    result = {key: getattr(job, key) for key in ("name", "family", "seed", "parts")}
    result["params"] = {"trained": took["trained"], "total": judged.pop("total")}
    result["training"] = {key: value for key, value in took.items() if key not in ("trained", "model")}
    costs = folder / "costs.json"
    return result | judged | (read(costs) if costs.is_file() else {})


def _keep_pictures(job: Job, model: Any, report: Any) -> None:
    """The judged pictures themselves."""
    from unimodal.compare.geneval import write_pictures
    from unimodal.evaluation.shapes import examples

    asked = examples("t2i", job.split, job.n, job.judge_seed, model.config.image_size)
    drawn = [case.tiles[0][0] for case in report.cases if case.name.startswith("t2i/")]
    write_pictures(Path(job.pictures), asked, drawn, job.sample)


if __name__ == "__main__":
    part, place, parent = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    end_with(parent)
    try:
        with alone_in(place, ENDING):
            {"train": train_job, "judge": judge_job, "measure": measure_job}[part](place)
    except UserError as error:
        (place / "failure.txt").write_text(str(error), encoding="utf-8")
        sys.exit(str(error))
