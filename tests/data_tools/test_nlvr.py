"""NLVR: statements held out, three boxes whole in every picture, the archive read safely."""

import io
import json
from collections import Counter
from itertools import permutations
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image, ImageColor

from data_tools.nlvr.boxes import LARGEST, fitted
from data_tools.nlvr.build import key_of, make_nlvr
from tests.data_tools.given import contents, examples, lines, real
from unimodal.data.check import check
from unimodal.errors import UserError

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


def boxes(colours=COLOURS) -> np.ndarray:
    """Three boxes of one colour each, with the corpus' gaps."""
    pixels = np.full((100, 400, 3), 128, np.uint8)
    for k, colour in enumerate(colours):
        pixels[:, 150 * k : 150 * k + 100] = colour
    return pixels


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write(folder: Path, sentences: int = 40, replace: dict[str, bytes] | None = None) -> Path:
    """Two examples of each statement, true and false, with `replace` for some pictures (None: no picture)."""
    folder.mkdir()
    found, pictures = [], {}
    for n in range(sentences):
        for m, label in enumerate(("true", "false")[: 1 + (n % 4 > 0)]):
            sentence = f"There are {n} boxes." if m else f"there are {n}  boxes"
            one = {"sentence": sentence, "label": label, "identifier": f"{n}-{m}", "directory": "0"}
            found.append(one | {"evals": {}, "structured_rep": [[{"x_loc": n, "size": m}], [], []]})
            for k in range(6):
                pictures[f"nlvr/dev/images/0/dev-{n}-{m}-{k}.png"] = png(boxes(np.roll(COLOURS, k, 0)))
    (folder / "dev.json").write_text("".join(json.dumps(one) + "\n" for one in found))
    with ZipFile(folder / "nlvr-dev-images.zip", "w", ZIP_DEFLATED) as file:
        for name, data in (pictures | (replace or {})).items():
            if data is not None:
                file.writestr(name, data)
    return folder


def test_a_square_holds_three_whole_boxes():
    picture = np.asarray(fitted(boxes(), 64))
    assert picture.shape == (64, 64, 3)
    corners = {(0, 0): 0, (0, 34): 1, (34, 0): 2}
    grey = np.ones((64, 64), bool)
    for (y, x), k in corners.items():
        assert (picture[y : y + 30, x : x + 30] == COLOURS[k]).all()
        grey[y : y + 30, x : x + 30] = False
    assert (picture[grey] == 128).all()


def test_a_row_is_the_picture_of_the_corpus():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 400, 3), np.uint8)
    assert (np.asarray(fitted(pixels, 400, "row")) == pixels).all()
    assert fitted(pixels, 128, "row").size == (128, 32)


def test_statements_are_held_out_whole_and_the_majority_is_told(tmp_path):
    folder, out = write(tmp_path / "nlvr"), tmp_path / "out"
    make_nlvr(folder, out, orders=3)
    meta = json.loads((out / "meta.json").read_text())
    keys = {}
    for split, orders in (("train", 3), ("val", 1)):
        found = examples(out, split)
        keys[split] = {key_of(truth["statement"]) for _, truth in found}
        assert check(out / f"{split}.jsonl").tasks == {"vqa": len(found)}
        assert Counter(truth["order"] for _, truth in found).keys() == set(range(orders))
        for row, truth in found:
            user, assistant = (message["content"] for message in row["messages"])
            assert user == f"<image>is this true? {truth['statement']}" and assistant == truth["answer"]
            assert truth["answer"] == ("no" if truth["identifier"].endswith("-1") else "yes")
            first = np.asarray(Image.open(out / row["images"][0]))[0, 0]
            assert tuple(first) == tuple(np.roll(COLOURS, truth["order"], 0)[0])
        yes = sum(truth["answer"] == "yes" for _, truth in found) / len(found)
        answer, share = ("yes", yes) if yes >= 0.5 else ("no", 1 - yes)
        assert meta["majority"][split] == {"answer": answer, "share": pytest.approx(share)}
    assert keys["train"] | keys["val"] == {f"there are {n} boxes" for n in range(40)}
    assert not keys["train"] & keys["val"]
    make_nlvr(folder, tmp_path / "again", orders=3)
    assert contents(tmp_path / "again") == contents(out)


def test_boxes_are_told_in_words(tmp_path):
    folder, out = write(tmp_path / "nlvr"), tmp_path / "out"
    things = [
        {"type": "square", "color": colour, "x_loc": x, "y_loc": 80, "size": size}
        for x, colour, size in ((1, "Yellow", 10), (22, "#0099ff", 20), (40, "Black", 30))
    ]
    (folder / "dev.json").write_text(
        "".join(
            json.dumps(json.loads(line) | {"structured_rep": [things[:2], things[2:], []]}) + "\n"
            for line in (folder / "dev.json").read_text().splitlines()
        )
    )
    (folder / "nlvr-dev-images.zip").write_bytes(b"")  # needs to be there, and is not read
    make_nlvr(folder, out, told=True)
    found = examples(out, "train")
    assert check(out / "train.jsonl").tasks == {"text": len(found)}
    first = "small yellow square 1 80, medium blue square 22 80", "large black square 40 80", "nothing"
    for (row, truth), order in zip(found, [*permutations(range(3))] * len(found)):
        assert truth["kind"] == "text/nlvr" and "images" not in row
        boxes = " ".join(f"box {k}: {first[n]}." for k, n in enumerate(order, 1))
        assert row["messages"][0]["content"] == f"{boxes} is this true? {truth['statement']}"
    assert not (out / "pictures").exists()
    make_nlvr(write(tmp_path / "shown"), tmp_path / "pictures")
    kept = [[t["statement"] for t in lines(p / "val.truth.jsonl")] for p in (out, tmp_path / "pictures")]
    assert kept[0] == kept[1]


NAME = "nlvr/dev/images/0/dev-3-0-0.png"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "no such picture in the archive"),
        (b"no picture", "not a readable picture"),
        (png(boxes())[:200], "truncated or damaged"),
        (png(boxes()[:, :300]), "300x100 pixels; expected three boxes in a row"),
        (b"\0" * (LARGEST + 1), f"{LARGEST + 1} bytes unpacked; expected at most {LARGEST}"),
        (png(np.zeros((600, 2400, 3), np.uint8)), "too large: 2400x600"),
    ],
)
def test_pictures_of_another_shape_are_told(data, message, tmp_path):
    folder = write(tmp_path / "nlvr", 8, {NAME: data})
    with pytest.raises(UserError, match=rf"dev-3-0-0\.png: .*{message}"):
        make_nlvr(folder, tmp_path / "out", val=0.5)


def test_an_archive_that_lies_about_a_size_is_not_unpacked(tmp_path):
    folder = write(tmp_path / "nlvr", 8, {NAME: b"\0" * (LARGEST * 4)})
    path = folder / "nlvr-dev-images.zip"
    packed = path.read_bytes()
    told = (LARGEST * 4).to_bytes(4, "little")
    assert packed.count(told) == 2
    path.write_bytes(packed.replace(told, (2000).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"dev-3-0-0\.png"):
        make_nlvr(folder, tmp_path / "out", val=0.5)


def test_a_folder_of_another_shape_is_told(tmp_path):
    with pytest.raises(UserError, match=r"dev\.json is missing.*https://github.com/lil-lab/nlvr"):
        make_nlvr(tmp_path, tmp_path / "out")
    folder = write(tmp_path / "nlvr")
    for options in ({"size": 60}, {"orders": 7}, {"arrangement": "pile"}, {"val": 1.0}):
        with pytest.raises(UserError):
            make_nlvr(folder, tmp_path / "out", **options)
    (folder / "nlvr-dev-images.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match="no readable zip archive"):
        make_nlvr(folder, tmp_path / "out")
    with (folder / "dev.json").open("a") as file:
        file.write('{"sentence": "x", "identifier": "../../x", "directory": "0", "label": "true"}\n')
    with pytest.raises(UserError, match=r"dev\.json:71: found"):
        make_nlvr(folder, tmp_path / "out")


def test_the_corpus(tmp_path):
    """Things lie where the corpus' own description of the first order says, so pictures and rows belong."""
    out = tmp_path / "out"
    make_nlvr(real("nlvr"), out, size=400, arrangement="row", orders=1, val=0.5)
    found = examples(out, "train") + examples(out, "val")
    assert len(found) == 989 and Counter(truth["answer"] for _, truth in found)["yes"] == 547
    looked = 0
    for row, truth in found[:100]:
        pixels = np.asarray(Image.open(out / row["images"][0]))
        for k, box in enumerate(truth["boxes"]):
            for thing in box:
                x, y = thing["x_loc"] + thing["size"] // 2, thing["y_loc"] + thing["size"] * 2 // 3
                if x < 100 and y < 100:  # some stick out of their box
                    colour = ImageColor.getrgb(thing["color"].lower())
                    assert np.abs(pixels[y, 150 * k + x].astype(int) - colour).max() < 8
                    looked += 1
    assert looked > 300
    statements = [{key_of(t["statement"]) for t in lines(out / f"{s}.truth.jsonl")} for s in ("train", "val")]
    assert not statements[0] & statements[1]
