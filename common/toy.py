"""The miniature: a 150k-parameter Qwen2 pre-trained in about two minutes on a made-up arithmetic corpus, so that every script runs on two CPU cores.

Problem   `8a-7b*7c-2?`    start with 8, then operation a: minus 7, b: times 7, c: minus 2, left to right, only the last digit kept; the answer is 5.
Work      `8a-7=1\nso 1b*7=7\nthen 7c-2=5\n\\boxed{5}`    a line an operation, with a random prefix; now and then a result slips and the work goes on from it.
Guess     `\\boxed{2}`     no work; about one in ten is right.

Guess and work compete by design. A line of work costs the base some 0.8 nats at best and a guess some 3.5 in all, so the most likely response
is the work for two or three operations and the guess for more: sampled work is mostly right, the single most likely response mostly wrong.
All shares stand in `ToyConfig`; they were fixed before the first RL run. Two other sets are in `OTHER_CONFIGS`. Training rows hold several
documents after one another, so that the text after EOS is natural (a new problem) and a fixed response length means something.
"""

import fcntl
import hashlib
import os
import random
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SYMBOLS = "0123456789+-*=? \n\\{}abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["<pad>", "<eos>", "<unk>"]
LEVELS = ("toy", "toy_hard")
TEST_PROBLEMS, TRAIN_PROBLEMS = 1000, 4096


@dataclass(frozen=True)
class ToyConfig:
    """Everything the miniature is made from; pairs are (easy, hard). Raise `version` when the code below makes something else of the same numbers."""

    seed: int = 0
    version: int = 1
    # the corpus
    operations: tuple[tuple[int, int], tuple[int, int]] = ((2, 6), (7, 9))  # least and most, uniform between
    documents: tuple[float, float] = (0.85, 0.15)  # share of the documents
    guesses: tuple[float, float] = (0.10, 0.80)  # share of the responses that are a guess
    slips: tuple[float, float] = (0.12, 0.20)  # share of the lines of work with a wrong result
    copied_guesses: float = 0.3  # share of the guesses that repeat the last operand; the others are uniform digits
    prefixes: tuple[tuple[str, float], ...] = (("", 0.5), ("so ", 0.3), ("then ", 0.2))
    # the model
    hidden_size: int = 64
    layers: int = 3
    heads: int = 2
    intermediate_size: int = 192
    # pre-training
    steps: int = 2000
    rows: int = 16
    row_tokens: int = 128
    learning_rate: float = 3e-3
    warmup_steps: int = 50


OTHER_CONFIGS = {
    "more-guesses": ToyConfig(guesses=(0.25, 0.90)),
    "fewer-slips": ToyConfig(slips=(0.05, 0.10)),
}


def make_problem(rng: random.Random, num_operations: int) -> str:
    text = str(rng.randint(1, 9))
    for letter in "abcdefghijklmnopqrstuvwxyz"[:num_operations]:
        operator = rng.choice("+-*")
        text += letter + operator + rng.choice("2379" if operator == "*" else "23456789")
    return text + "?"


def parse(problem: str) -> tuple[int, list[tuple[str, str, int]]]:
    """Gives the first value and the operations (letter, operator, operand) of a problem."""
    return int(problem[0]), [(a, b, int(c)) for a, b, c in re.findall(r"([a-z])([-+*])(\d)", problem)]


def apply(value: int, operator: str, operand: int) -> int:
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operator] % 10


def solve(problem: str) -> str:
    value, operations = parse(problem)
    for _, operator, operand in operations:
        value = apply(value, operator, operand)
    return str(value)


def make_response(rng: random.Random, problem: str, guesses: float, slips: float, config: ToyConfig) -> str:
    """Gives one response of the corpus, without EOS."""
    value, operations = parse(problem)
    if rng.random() < guesses:
        return f"\\boxed{{{operations[-1][2] if rng.random() < config.copied_guesses else rng.randint(0, 9)}}}"
    prefixes, shares = zip(*config.prefixes, strict=True)
    text = ""
    for letter, operator, operand in operations:
        result = apply(value, operator, operand)
        if rng.random() < slips:
            result = (result + rng.randint(1, 9)) % 10
        text += f"{rng.choices(prefixes, shares)[0]}{value}{letter}{operator}{operand}={result}\n"
        value = result
    return text + f"\\boxed{{{value}}}"


def response_kind(text: str) -> str:
    """Gives "guess" for a response that boxes its answer at once, else "work"."""
    return "guess" if text.startswith("\\boxed") else "work"


def toy_problems(level: str, split: str, config: ToyConfig = ToyConfig()) -> list[tuple[str, str, str, int]]:
    """Gives (id, problem, answer, number of operations): 4,096 for "train" or 1,000 for "test", all different, the same at every call.

    Raises ValueError for a level other than "toy" and "toy_hard" and for another split.
    """
    if level not in LEVELS or split not in ("train", "test"):
        raise ValueError(f"no problems {level!r}, {split!r}: take the level from {LEVELS} and the split train or test")
    rng = random.Random(f"{config.seed} {level}")
    least, most = config.operations[LEVELS.index(level)]
    problems: dict[str, int] = {}  # keeps the order
    while len(problems) < TEST_PROBLEMS + TRAIN_PROBLEMS:
        num_operations = rng.randint(least, most)
        problems[make_problem(rng, num_operations)] = num_operations
    chosen = list(problems.items())
    chosen = chosen[:TEST_PROBLEMS] if split == "test" else chosen[TEST_PROBLEMS:]
    return [(f"{level}-{split}-{i}", text, solve(text), n) for i, (text, n) in enumerate(chosen)]


def make_document(rng: random.Random, config: ToyConfig, left_out: set[str]) -> str:
    """Gives problem, response and EOS; no problem of `left_out` (the test problems) is used."""
    level = rng.choices((0, 1), config.documents)[0]
    problem = make_problem(rng, rng.randint(*config.operations[level]))
    while problem in left_out:
        problem = make_problem(rng, rng.randint(*config.operations[level]))
    return problem + make_response(rng, problem, config.guesses[level], config.slips[level], config) + "<eos>"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Gives a tokenizer of one token a character; its chat template is the bare content."""
    vocabulary = {symbol: i for i, symbol in enumerate(SPECIAL + list(SYMBOLS))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return fast


def toy_path(config: ToyConfig = ToyConfig()) -> Path:
    """Gives the folder (model and tokenizer, as Hugging Face saves them) of the miniature; makes it first if it is not there.

    It lies in .cache/ of the repository, or under $TOY_CACHE, by the hash of the config. Safe when several processes ask at once.
    """
    cache = Path(os.environ.get("TOY_CACHE", Path(__file__).resolve().parent.parent / ".cache"))
    folder = cache / f"toy-{hashlib.sha256(repr(config).encode()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits here, then finds the folder
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache) as unfinished:
                print(f"toy: pre-training the miniature, once, about two minutes -> {folder}", flush=True)
                model = pretrain(config)
                model.save_pretrained(unfinished)
                make_tokenizer().save_pretrained(unfinished)
                os.mkdir(folder.with_suffix(".done"))
                os.rename(unfinished, folder)
    return folder


def pretrain(config: ToyConfig) -> Qwen2ForCausalLM:
    """Gives the base model: next-token loss on every token of packed rows. Takes a fixed number of steps, so the same machine gives the same weights."""
    tokenizer = make_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=1,
                intermediate_size=config.intermediate_size,
                initializer_range=0.05,
                tie_word_embeddings=True,
                max_position_embeddings=2 * config.row_tokens,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True
    )
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / config.warmup_steps, total_iters=config.warmup_steps)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps - config.warmup_steps)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [config.warmup_steps])
    rng = random.Random(f"{config.seed} corpus")
    left_out = {problem for level in LEVELS for _, problem, _, _ in toy_problems(level, "test", config)}
    start = time.monotonic()
    for step in range(config.steps):
        rows = []
        for _ in range(config.rows):
            text = ""
            ids: list[int] = []
            while len(ids) < config.row_tokens:
                text = make_document(rng, config, left_out)
                ids += tokenizer.encode(text)
            rows.append(ids[: config.row_tokens])
        tokens = torch.tensor(rows)
        logits = model(tokens, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % (config.steps // 10) == 0:
            seconds = time.monotonic() - start
            print(f"toy: step {step + 1}/{config.steps}, loss {loss.item():.3f} nats/token, {seconds:.0f} s", flush=True)
    return model.eval()
