"""One-step word problems for benchmark/small_model/smollm2.sh: python -m benchmark.small_model.data FOLDER

Writes FOLDER/small_{train,validation,test}.jsonl: of ASDiv, grades 1 and 2, the problems with one operation, and of
MAWPS the parts AddSub and SingleOp; of these the ones whose numbers are whole and at most 20, since SmolLM2-135M hardly
adds larger ones. Each text comes once, and its hash says into which file it goes. The sources are downloaded; without a
network, put them into FOLDER first: ASDiv.xml, addsub.jsonl and singleop.jsonl (SOURCES below).
"""

import hashlib
import json
import re
import sys
import urllib.request
import xml.etree.ElementTree as ET
from pathlib import Path

from common.data import normal_text

GITHUB = "https://raw.githubusercontent.com"
ASDIV = f"{GITHUB}/chaochun/nlu-asdiv-dataset/883f90a9a65bf00304ba8f37423910fe743abc47/dataset"
MAWPS = f"{GITHUB}/QwenLM/Qwen2.5-Math/a45202bd16f1ec06f433442dc1152d0074773465/evaluation/data/mawps"
SOURCES = {  # name: (folder, sha256)
    "ASDiv.xml": (ASDIV, "ef8904068482919ac48c8eeaaf6df344b8a308ba66d048c2d4d87eab82dc4929"),
    "addsub.jsonl": (MAWPS, "2fae2c92530cdf1ac0487db9a90e68d6af84049d755c07c4486411c1d7f43e75"),
    "singleop.jsonl": (MAWPS, "feb012e7ed5503cdb96fd127d539692b033000e9134655acaf4f4e0091328e94"),
}
LARGEST = 20  # number in a problem or an answer
LARGE = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|dozen"
TEST, VALIDATION = 100, 60  # problems; the rest is for training


def fetch(folder: Path, name: str) -> str:
    """The text of a source. Raises ValueError if it cannot be had or is not the edition that was used here."""
    path, (url, sha256) = folder / name, SOURCES[name]
    if not path.exists():
        try:
            content = urllib.request.urlopen(f"{url}/{name}", timeout=60).read()
        except OSError as error:
            raise ValueError(f"cannot download {url}/{name} ({error}): put it into {folder}") from error
        path.write_bytes(content)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{path} is another edition than {url}/{name}: delete it, and it is downloaded")
    return path.read_text(encoding="utf-8")


def asdiv(xml: str) -> list[dict]:
    rows = []
    for problem in ET.fromstring(xml).iter("Problem"):
        answer = re.fullmatch(r"(-?[\d.]+)\s*(\(.*\))?", problem.findtext("Answer").strip())
        steps = re.findall(r"[-+*/]", problem.findtext("Formula").split("=")[0])
        if int(problem.get("Grade")) <= 2 and answer and len(steps) == 1:
            text = f"{problem.findtext('Body').strip()} {problem.findtext('Question').strip()}"
            rows.append({"id": f"asdiv/{problem.get('ID')}", "problem": text, "answer": answer[1], "subject": "asdiv"})
    return rows


def mawps(name: str, lines: str) -> list[dict]:
    rows = []
    for number, line in enumerate(lines.splitlines()):
        row = json.loads(line)
        answer = f"{row['target']:.12g}"
        rows.append({"id": f"mawps/{name}/{number}", "problem": row["input"], "answer": answer, "subject": "mawps"})
    return rows


def is_small(row: dict) -> bool:
    numbers = re.findall(r"\d[\d.,]*\d|\d", f"{row['problem']} {row['answer']}")
    large = re.search(LARGE, row["problem"].casefold())
    return not large and all(number.isdigit() and int(number) <= LARGEST for number in numbers)


def split(rows: list[dict]) -> dict[str, list[dict]]:
    """Rows by file name: those of lowest hash are the test; of equal texts the first stays."""
    first = {normal_text(row["problem"]): row for row in reversed(rows)}
    order = [first[text] for text in sorted(first, key=lambda text: hashlib.sha256(text.encode()).digest())]
    held_out = TEST + VALIDATION
    return {"test": order[:TEST], "validation": order[TEST:held_out], "train": order[held_out:]}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = asdiv(fetch(folder, "ASDiv.xml"))
    for name in ("addsub", "singleop"):
        rows += mawps(name, fetch(folder, f"{name}.jsonl"))
    for name, part in split(list(filter(is_small, rows))).items():
        path = folder / f"small_{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
        print(f"{path}: {len(part)} problems")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except IndexError:
        sys.exit(__doc__)
    except ValueError as error:
        sys.exit(f"error: {error}")
