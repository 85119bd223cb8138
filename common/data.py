"""Math problems, their prompts as token ids, and the order in which training sees them.

A data set is named by one of `KNOWN_DATASETS` (read from the Hugging Face hub, or the built-in miniature) or is a local
.jsonl or .jsonl.gz file with "problem" and "answer" on every line, and "id", "level" and "subject" where there are any.
"""

import gzip
import hashlib
import json
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from jinja2 import TemplateError

from common.grading import last_box
from common.rollout import generator, progress_bar

PROMPTS = Path(__file__).parent / "prompts"
AIME_REPEATS = 16  # 30 problems x 16 = 480 samples, the paper's "about 500"
DEEPSCALER_HELD_OUT = 500


@dataclass(frozen=True)
class Problem:
    """One problem with its reference answer (LaTeX, without the box).

    `selections` says which choice of the best checkpoint it counts for when it validates: "authors" as the paper's
    authors chose, "held_out" on problems that are in no reported test set.
    """

    id: str
    problem: str
    answer: str
    dataset: str
    level: int | None = None
    subject: str | None = None
    selections: frozenset[str] = frozenset({"authors", "held_out"})
    repeat_of: str | None = None  # id of the problem that this one repeats

    @property
    def group(self) -> str:
        """Repeats of a problem share their group: standard errors count them as one problem, not as several."""
        return self.repeat_of or self.id


def say(line: str) -> None:
    """Prints a line once, however many processes there are."""
    if os.environ.get("RANK", "0") == "0":
        print(line, flush=True)


# ------------------------------------------------------------------------------------------------------------ data sets


def boxed_answer(row: dict) -> str | None:
    """Returns the content of the last box of a MATH row's solution, None without a box."""
    answer = last_box(row["solution"])
    return "0" if answer == "" else answer  # two training solutions end in an empty box, meaning "no primes"


def hashes_answer(row: dict) -> str:
    """Returns what follows #### in a GSM8K answer."""
    return row["answer"].rsplit("####", 1)[1]


def whole_answer(row: dict) -> str:
    """Returns the number without leading zeros: AIME writes 025 for 25."""
    return str(int(row["answer"]))


def plain_answer(row: dict) -> str | None:
    """Returns the answer as the row has it."""
    return row["answer"]


class HubSet(NamedTuple):
    """Where a data set is on the hub, which column has the problem, and the function that reads a row's answer."""

    path: str
    config: str | None
    split: str
    problem: str
    answer: Callable[[dict], str | None]


HUB = {
    "math": HubSet("DigitalLearningGmbH/MATH-lighteval", "default", "train", "problem", boxed_answer),
    "math_test": HubSet("DigitalLearningGmbH/MATH-lighteval", "default", "test", "problem", boxed_answer),
    "deepscaler": HubSet("agentica-org/DeepScaleR-Preview-Dataset", None, "train", "problem", plain_answer),
    "gsm8k": HubSet("openai/gsm8k", "main", "train", "question", hashes_answer),
    "gsm8k_test": HubSet("openai/gsm8k", "main", "test", "question", hashes_answer),
    "math500": HubSet("HuggingFaceH4/MATH-500", None, "test", "problem", plain_answer),
    "minerva": HubSet("math-ai/minervamath", None, "test", "question", plain_answer),
    "aime24": HubSet("HuggingFaceH4/aime_2024", None, "train", "problem", whole_answer),
    "aime25": HubSet("MathArena/aime_2025", None, "train", "problem", whole_answer),
    "hmmt25": HubSet("MathArena/hmmt_feb_2025", None, "train", "problem", plain_answer),
}
TOY = {
    "toy": ("toy", "train"),
    "toy_test": ("toy", "test"),
    "toy_hard": ("toy_hard", "train"),
    "toy_hard_test": ("toy_hard", "test"),
}
KNOWN_DATASETS = (*HUB, *TOY)
LOCAL_FILE = 'a local .jsonl or .jsonl.gz file with "problem" and "answer" on every line'


def load_problems(name: str) -> list[Problem]:
    """Returns the problems of a known data set or of a local file, in their own order, duplicates kept.

    "deepscaler" leaves out rows without an answer and the rows that `validation_of` holds out. Raises ValueError, in
    one line, for an unknown name, a hub that cannot be reached, or a file that is empty, broken or lacks a field.
    """
    if name in TOY:
        from common.toy import toy_problems

        return [Problem(id, text, answer, name, level=n) for id, text, answer, n in toy_problems(*TOY[name])]
    if name == "deepscaler":
        return split_deepscaler(problems_from_hub(name))[0]
    if name in HUB:
        return problems_from_hub(name)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return problems_from_file(Path(name))
    raise ValueError(f"unknown data set {name!r}: give one of {', '.join(KNOWN_DATASETS)}, or {LOCAL_FILE}")


def problems_from_hub(name: str) -> list[Problem]:
    """Returns the problems of one of the sets in HUB. Raises ValueError, in one line, if it cannot be loaded."""
    import datasets  # here, because it takes seconds and local files do not need it

    source = HUB[name]
    try:
        rows = datasets.load_dataset(source.path, source.config, split=source.split)
    except Exception as error:  # the hub, the network and the file formats each raise types of their own
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"cannot load {name!r} ({source.path}) from the Hugging Face hub: {reason}. "
            f"Known data sets are {', '.join(KNOWN_DATASETS)}; without the hub give {LOCAL_FILE}"
        ) from error
    problems = problems_from_rows(name, rows)
    if len(problems) < len(rows):
        say(f"{name}: left out {len(rows) - len(problems)} of {len(rows)} rows, which have no answer")
    return problems


def problems_from_rows(name: str, rows: Iterable[dict]) -> list[Problem]:
    """Returns the problems of a hub data set from its rows; ids are the rows' own (MATH-500) or name and row from 0.

    A row without an answer is left out of "deepscaler" (a known gap of that set) and raises ValueError in any other, as
    does a missing column.
    """
    source = HUB[name]
    problems = []
    for number, row in enumerate(rows):
        try:
            text, answer = row[source.problem], source.answer(row)
        except KeyError as error:
            raise ValueError(f"{source.path}, row {number}: no column {error}, only {', '.join(row)}") from error
        answer = "" if answer is None else str(answer).strip()
        if answer:
            id, subject = row.get("unique_id") or f"{name}-{number}", row.get("subject") or row.get("type")
            problems.append(Problem(id, text.strip(), answer, name, level_of(row.get("level")), subject))
        elif name != "deepscaler":
            raise ValueError(f"{source.path}, row {number}: no answer")
    return problems


def problems_from_file(path: Path) -> list[Problem]:
    """Returns the problems of a local file, whose name is that of the data set. Raises ValueError as `read_jsonl`."""
    dataset = path.name.removesuffix(".gz").removesuffix(".jsonl")
    rows = read_jsonl(path, ("problem", "answer"))
    given = [f"{path.name}:{number}" if row.get("id") in (None, "") else str(row["id"]) for number, row in rows]
    taken, seen = set(given), set()
    problems = []
    for (number, row), id in zip(rows, given, strict=True):
        if id in seen:  # results are stored by id, so a repeated one gets its line number, as often as it takes
            while id in taken:
                id = f"{id}:{number}"
            taken.add(id)
        seen.add(id)
        subject = row.get("subject")
        problems.append(Problem(id, row["problem"], row["answer"], dataset, level_of(row.get("level")), subject))
    return problems


def read_jsonl(path: Path, fields: tuple[str, ...]) -> list[tuple[int, dict]]:
    """Returns (line number from 1, row) of every line that is not blank; in each row all `fields` are text that is not
    blank, as `field_text` returns it.

    Raises ValueError, with file and line, for a broken line or a missing field, and for a file that cannot be read or
    holds nothing.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    rows = []
    for number, line in enumerate(content.split(b"\n"), 1):  # not splitlines(): strings may hold other line separators
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is valid JSON, but no text
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: not a JSON object with {' and '.join(fields)}")
        for field in fields:
            try:
                row[field] = field_text(row.get(field))
            except ValueError as error:
                raise ValueError(f'{path}, line {number}: "{field}" {error}') from None
        rows.append((number, row))
    if not rows:
        raise ValueError(f"{path} is empty: it needs a JSON object with {' and '.join(fields)} on every line")
    return rows


def field_text(value: object) -> str:
    """Returns a field of a data file as text without blanks at its ends; a number without an exponent (1e-07 as
    0.0000001), which math-verify does not read. Raises ValueError, with what is wrong, for anything else."""
    if isinstance(value, float) and math.isfinite(value):
        return format(Decimal(repr(value)), "f")
    text = "" if value is None or value != value else str(value).strip()  # NaN, as pandas writes a gap, is not itself
    if not text:
        raise ValueError("is missing or empty")
    if not isinstance(value, str | int | float):
        raise ValueError(f"is {json.dumps(value)[:100]}: it must be text or a number")
    return text


def level_of(value: object) -> int | None:
    """Returns 3 for 3 and for "Level 3"; None without a level or without a number ("Level ?" in two MATH problems)."""
    digits = re.search(r"\d+", str(value))
    return int(digits.group()) if digits else None


# ----------------------------------------------------------------------------------------------------------- validation


def validation_of(name: str) -> list[Problem]:
    """Returns the problems on which training on the data set `name` is validated, with their `selections`.

    "math": the 5,000 test problems, as the authors did; those of MATH-500, a reported set, count for "authors" only.
    "deepscaler": AIME 2024, a reported set, 16 times ("authors"), and 500 rows that training leaves out ("held_out").
    Raises ValueError for other data sets, which need --validation-dataset.
    """
    if name == "math":
        reported = {normal_text(p.problem) for p in load_problems("math500")}
        test = load_problems("math_test")
        missing = len(reported - {normal_text(p.problem) for p in test})
        if missing:  # otherwise they would silently count as held out
            raise ValueError(f"{missing} problems of math500 are not in math_test: they are different editions")
        authors = frozenset({"authors"})
        return [replace(p, selections=authors) if normal_text(p.problem) in reported else p for p in test]
    if name == "deepscaler":
        aime = [
            replace(p, id=f"{p.id}#{i}", repeat_of=p.id, selections=frozenset({"authors"}))
            for i in range(AIME_REPEATS)
            for p in load_problems("aime24")
        ]
        held_out = split_deepscaler(problems_from_hub("deepscaler"))[1]
        return aime + [replace(p, selections=frozenset({"held_out"})) for p in held_out]
    if name in ("toy", "toy_hard"):
        return load_problems(f"{name}_test")
    raise ValueError(f"no validation problems are known for {name!r}: name some with --validation-dataset")


def load_training(tokenizer, args) -> tuple[list[Problem], list[list[int]]]:
    """Returns the training problems of a script's `args` that fit the window, and their prompts as token ids.

    Prints how many problems each epoch leaves out. Raises ValueError if a batch needs more problems than there are.
    """
    problems, prompts = load_prompts(tokenizer, load_problems(args.dataset), args)
    batch_indices(len(problems), args.num_problems, args.seed, step=0)  # raises ValueError if there are too few
    left_out = len(problems) % args.num_problems
    if left_out:
        say(
            f"training set: {len(problems)} problems, {len(problems) // args.num_problems} batches of "
            f"{args.num_problems} an epoch; each epoch leaves out {left_out} problems, not always the same"
        )
    return problems, prompts


def load_validation(args) -> list[Problem]:
    """Returns the validation problems of a script's `args`: all, or `validation_size` of them drawn by the seed."""
    problems = load_problems(args.validation_dataset) if args.validation_dataset else validation_of(args.dataset)
    if not args.validation_size:
        return problems
    chosen = generator("validation subset", args.seed).permutation(len(problems))[: args.validation_size]
    return [problems[i] for i in sorted(chosen)]


def normal_text(text: str) -> str:
    """Returns the text in small letters with single spaces. Problems whose texts are then equal count as the same."""
    return " ".join(text.casefold().split())


def split_deepscaler(problems: list[Problem]) -> tuple[list[Problem], list[Problem]]:
    """Returns (training, held out). The 500 held-out problems occur once in the set and have the lowest hashes of their
    text, so that the split does not depend on the order of the rows."""
    texts = [normal_text(p.problem) for p in problems]
    once = [text for text, count in Counter(texts).items() if count == 1]
    held_out = set(sorted(once, key=lambda text: hashlib.sha256(text.encode()).digest())[:DEEPSCALER_HELD_OUT])
    training = [p for p, text in zip(problems, texts, strict=True) if text not in held_out]
    return training, [p for p, text in zip(problems, texts, strict=True) if text in held_out]


# -------------------------------------------------------------------------------------------------------------- prompts


def prompt_file_of(name: str) -> Path:
    """Returns the default prompt file of a data set: boxed.txt; bare.txt for the miniature, which knows no words."""
    return PROMPTS / ("bare.txt" if name in TOY else "boxed.txt")


def load_wording(prompt_file: str | Path) -> str:
    """Returns the wording, which holds {problem}. Raises ValueError if it does not or if the file cannot be read."""
    try:
        wording = Path(prompt_file).read_text(encoding="utf-8-sig").rstrip("\n")  # without the mark of Windows editors
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the prompt file {prompt_file}: {error}") from error
    if "{problem}" not in wording:
        raise ValueError(f"the prompt file {prompt_file} must say with {{problem}} where the problem goes")
    return wording


def load_examples(path: str | Path | None) -> list[tuple[str, str]]:
    """Returns the worked examples (problem, solution) of a .jsonl file, none for None. Raises as `read_jsonl` does."""
    rows = read_jsonl(Path(path), ("problem", "solution")) if path else []
    return [(row["problem"], row["solution"]) for _, row in rows]


def load_tokenizer(path: str):
    """Returns the tokenizer of a model folder or Hugging Face id. Raises ValueError, in one line, if there is none."""
    from transformers import AutoTokenizer  # here, because it takes seconds and data sets do not need it

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        usable = bool(tokenizer.encode("1", add_special_tokens=False))  # transformers makes an empty one for some types
    except (OSError, ValueError, KeyError, ImportError):
        usable = False
    if not usable:
        raise ValueError(f"--model {path} has no tokenizer that can be read: put its tokenizer.json there.")
    return tokenizer


def read_template_kwargs(chat_template_kwargs: str) -> dict:
    """Returns the arguments that a JSON object has for the chat template. Raises ValueError for any other text."""
    try:
        arguments = json.loads(chat_template_kwargs or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise ValueError(
            f"--chat-template-kwargs {chat_template_kwargs}: must be a JSON object, such as "
            "'{\"enable_thinking\": false}'."
        )
    return arguments


def render_prompts(
    tokenizer,
    problems: list[Problem],
    prompt_file: str | Path,
    examples_file: str | Path | None = None,
    system_prompt: str = "",
    chat_template_kwargs: str = "",
) -> list[list[int]]:
    """Returns the token ids of each problem's prompt, ready for a response to follow.

    One user turn with the wording of `prompt_file`, after the worked examples as earlier turns and, at the very
    beginning, a system turn if `system_prompt` is not empty, through the chat template, which also gets the arguments
    in the JSON object `chat_template_kwargs`. A tokenizer without a template gets the turns as plain text with a blank
    line between. BOS comes once: as the template writes it, or else if this tokenizer puts one before any text.
    Templates that print the day's date (Llama) print a fixed one, so that prompts stay the same. Raises ValueError for
    a prompt or examples file that cannot be used, arguments that the chat template does not read, and a conversation
    that it refuses.
    """
    wording = load_wording(prompt_file)
    options = read_template_kwargs(chat_template_kwargs)
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    unread = [name for name in options if name not in template]
    if unread:
        raise ValueError(f"--chat-template-kwargs: this model's chat template reads no {unread[0]!r}; leave it out.")
    earlier = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for example, solution in load_examples(examples_file):
        earlier += [
            {"role": "user", "content": wording.replace("{problem}", example)},
            {"role": "assistant", "content": solution},
        ]
    prompts = []
    with progress_bar("prompts", total=len(problems)) as progress:
        for first in range(0, len(problems), 1000):
            texts = []
            for problem in problems[first : first + 1000]:
                turns = [*earlier, {"role": "user", "content": wording.replace("{problem}", problem.problem)}]
                texts.append(apply_template(tokenizer, turns, options))
            prompts += tokenizer(texts, add_special_tokens=False)["input_ids"]
            progress.update(len(texts))
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and tokenizer.encode("1")[:1] == [bos]
    return [[bos, *ids] if adds_bos and ids[:1] != [bos] else ids for ids in prompts]


def apply_template(tokenizer, turns: list[dict], options: dict) -> str:
    """Returns a conversation as text, up to where the response begins. Raises ValueError if the template refuses it."""
    if not tokenizer.chat_template:
        return "\n\n".join(turn["content"] for turn in turns)
    options = {"add_generation_prompt": True, "date_string": "26 Jul 2024"} | options
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, **options)
    except (TypeError, TemplateError) as error:
        raise ValueError(f"the chat template of this model refuses the conversation: {error}") from error


def load_prompts(tokenizer, problems: list[Problem], args) -> tuple[list[Problem], list[list[int]]]:
    """Returns the problems that fit the window of a training script's `args`, and their prompts as token ids."""
    prompt_file = args.prompt_file or prompt_file_of(args.dataset)
    prompts = render_prompts(
        tokenizer, problems, prompt_file, args.examples_file, args.system_prompt, args.chat_template_kwargs
    )
    return fit_window(problems, prompts, args.max_total_tokens)


def load_datasets(tokenizer, args) -> Iterator[tuple[list[Problem], list[list[int]], dict]]:
    """Yields the problems that fit the window, their prompts, and settings to record, for each of a script's data sets.

    The settings identify the data: `problems_hash` changes with any problem of the set, whatever --limit says,
    `prompt_hash` with the wording, `template_hash` with the token ids that chat template and tokenizer make of it.
    Raises ValueError for everything that can be wrong with the data sets: call it before the model is loaded.
    """
    if not args.dataset:
        raise ValueError("--dataset needs at least one name.")
    named: dict[str, str] = {}
    for name in args.dataset:
        problems = load_problems(name)
        if other := named.get(problems[0].dataset):
            raise ValueError(
                f"--dataset {other} {name}: both are called {problems[0].dataset!r}, and so would their results be. "
                "Rename one of the files, or evaluate them one by one, each with an --output-dir of its own."
            )
        named[problems[0].dataset] = name
        prompt_file = args.prompt_file or prompt_file_of(name)
        prompt = prompt_file, args.examples_file, args.system_prompt, args.chat_template_kwargs
        what = {
            "dataset": problems[0].dataset,
            "problems_hash": short_hash([[p.id, p.problem, p.answer, p.level, p.subject] for p in problems]),
            "prompt_hash": prompt_hash(*prompt),
            "template_hash": short_hash(render_prompts(tokenizer, problems[:1], *prompt)),
        }
        problems, prompts = load_prompts(tokenizer, problems[: args.limit], replace(args, dataset=name))
        yield problems, prompts, what


def prompt_hash(
    prompt_file: str | Path,
    examples_file: str | Path | None = None,
    system_prompt: str = "",
    chat_template_kwargs: str = "",
) -> str:
    """Returns 12 hexadecimal digits that change with the wording, the worked examples, the system prompt and the chat
    template's arguments; every result records them."""
    content: list = [load_wording(prompt_file), load_examples(examples_file)]
    arguments = read_template_kwargs(chat_template_kwargs)
    if system_prompt or arguments:
        content += [system_prompt, arguments]
    return short_hash(content)


def short_hash(content) -> str:
    """Returns 12 hexadecimal digits that identify anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def fit_window(
    problems: list[Problem], prompts: list[list[int]], max_total_tokens: int
) -> tuple[list[Problem], list[list[int]]]:
    """Returns the problems and prompts that leave room for a response token in the window; prints how many do not
    and up to 20 of their ids.

    Raises ValueError if none is left.
    """
    fits = [len(prompt) < max_total_tokens for prompt in prompts]
    too_long = [p.id for p, fit in zip(problems, fits, strict=True) if not fit]
    if len(too_long) == len(problems):
        shortest = min(map(len, prompts), default=0)
        raise ValueError(
            f"no prompt leaves room for a response in {max_total_tokens} tokens, "
            f"the shortest of {len(problems)} has {shortest}: raise --max-total-tokens"
        )
    if too_long:
        more = f" and {len(too_long) - 20} more" if len(too_long) > 20 else ""
        say(
            f"skipped {len(too_long)} of {len(problems)} problems, whose prompts leave no room for a response "
            f"in {max_total_tokens} tokens: {', '.join(too_long[:20])}{more}"
        )
    keep = [i for i, fit in enumerate(fits) if fit]
    return [problems[i] for i in keep], [prompts[i] for i in keep]


# -------------------------------------------------------------------------------------------------------------- batches


def batch_indices(num_problems: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Returns the `batch_size` problem indices of training step `step` (from 0), all different.

    Every epoch is a new order of all problems, cut into num_problems // batch_size batches. The remainder,
    num_problems % batch_size problems, is left out of that epoch; which ones these are changes from epoch to epoch. No
    batch spans two epochs. The result depends only on the arguments, so that a resumed run and every process of a
    parallel one see the same batches. Raises ValueError if there are fewer problems than a batch has.
    """
    if num_problems < batch_size:
        raise ValueError(
            f"--num-problems {batch_size}: the training set has only {num_problems} problems that fit, and a batch "
            f"never holds a problem twice; choose --num-problems {num_problems} or fewer."
        )
    epoch, batch = divmod(step, num_problems // batch_size)
    order = generator("epochs", seed, epoch).permutation(num_problems)
    return order[batch * batch_size : (batch + 1) * batch_size].tolist()
