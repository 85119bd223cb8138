"""The miniature: a 190k-parameter Qwen3, pre-trained in about a minute on made-up arithmetic; it runs on two CPU cores.

Its weights are part of the repository (common/toy_model), so that everybody starts from the same base. They were made
by `python -m common.toy`.

Problem   `8a-7b*7c-2?`   from 8: operation a, minus 7; b, times 7; c, minus 2; only the last digit is kept. Answer: 5.
Work      `8a-7=1\nso 1b*7=7\nthen 7c-2=5\n\\boxed{5}`   a line an operation; now and then a result is wrong.
Guess     `\\boxed{2}`   no work; about one in ten is right.

Guess and work compete by design. A line of work costs at least 0.8 nats and a guess at least 3.3, so the most likely
response of all is the work for two to four operations and the guess for six or more. Hard problems are long and mostly
guessed. All shares stand in `ToyConfig`; they were fixed before the first RL run on it. `OTHER_CONFIGS` has others.

Pre-training has two parts. School: work without mistakes on problems of all lengths, loss on the response only; without
it the model needs several times as long to find out how to look an operation up by its letter. Corpus: the shares
above, documents packed one after another, so that the text after EOS is natural (a new problem) and a fixed response
length means something. No test problem occurs in either.

The architecture is Qwen3 because transformers gives every model of type qwen2 the pre-tokenizer of the real Qwen2.
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
from string import ascii_lowercase

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

LEVELS = ("toy", "toy_hard")
SPECIAL = ["<pad>", "<eos>", "<unk>"]
PREFIXES = {"": 0.5, "so ": 0.3, "then ": 0.2}
OPERANDS = {"+": "23456789", "-": "23456789", "*": "2379"}
TEST_PROBLEMS, TRAIN_PROBLEMS = 1000, 4096


@dataclass(frozen=True)
class ToyConfig:
    """Everything that the miniature is made from; pairs are (easy, hard). Raise `version` when a change of the code
    changes the result."""

    seed: int = 0
    version: int = 1
    # the corpus
    operations: tuple[tuple[int, int], tuple[int, int]] = ((2, 6), (7, 9))  # least and most, uniform between
    documents: tuple[float, float] = (0.85, 0.15)  # share of the documents
    guesses: tuple[float, float] = (0.10, 0.85)  # share of the responses that are a guess
    slips: tuple[float, float] = (0.12, 0.25)  # share of the lines of work whose result is wrong
    copied_guesses: float = 0.3  # share of the guesses that repeat the last operand; the others are uniform digits
    gaps: bool = False  # whether letters may be left out, so that a short chain has late ones, too: `8c-7f*7?`
    # the model
    hidden_size: int = 64
    intermediate_size: int = 192
    layers: int = 3
    head_dim: int = 32
    heads: int = 4
    key_value_heads: int = 2
    # pre-training
    school_steps: int = 400
    corpus_steps: int = 400
    batch_size: int = 16  # documents at school, packed rows of the corpus
    row_tokens: int = 96
    warmup_steps: int = 50
    adamw_learning_rate: float = 3e-3  # embedding, norms, biases
    muon_learning_rate: float = 2e-2  # matrices


OTHER_CONFIGS = {
    "more-guesses": ToyConfig(guesses=(0.25, 0.90)),
    "fewer-guesses": ToyConfig(guesses=(0.02, 0.60)),
    # Has seen chains of one or two operations only, for the test of new skills in benchmark/miniature/beyond.
    "short-chains": ToyConfig(operations=((1, 2), (1, 2)), guesses=(0.10, 0.10), slips=(0.12, 0.12), gaps=True),
}


def make_problem(rng: random.Random, num_operations: int, gaps: bool = False) -> str:
    """Returns a random problem, such as `8a-7b*7c-2?`; with gaps its letters are any of the first nine, in order."""
    text = str(rng.randint(1, 9))
    letters = sorted(rng.sample(ascii_lowercase[:9], num_operations)) if gaps else ascii_lowercase[:num_operations]
    for letter in letters:
        operator = rng.choice("+-*")
        text += letter + operator + rng.choice(OPERANDS[operator])
    return text + "?"


def parse(problem: str) -> tuple[int, list[tuple[str, str, int]]]:
    """Returns the first value and the operations (letter, operator, operand) of a problem."""
    return int(problem[0]), [(a, b, int(c)) for a, b, c in re.findall(r"([a-z])([-+*])(\d)", problem)]


def apply(value: int, operator: str, operand: int) -> int:
    """Returns the last digit of the result of one operation."""
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operator] % 10


def solve(problem: str) -> str:
    """Returns the right answer, a digit."""
    value, operations = parse(problem)
    for _, operator, operand in operations:
        value = apply(value, operator, operand)
    return str(value)


def make_guess(rng: random.Random, problem: str, copied_guesses: float) -> str:
    """Returns a response without work: a share `copied_guesses` repeats the last operand, the others are random."""
    last_operand = parse(problem)[1][-1][2]
    return f"\\boxed{{{last_operand if rng.random() < copied_guesses else rng.randint(0, 9)}}}"


def make_work(rng: random.Random, problem: str, slips: float) -> str:
    """Returns a worked response. A share `slips` of its lines has a wrong result, with which the work continues."""
    value, operations = parse(problem)
    text = ""
    for letter, operator, operand in operations:
        result = apply(value, operator, operand)
        if rng.random() < slips:
            result = (result + rng.randint(1, 9)) % 10
        prefix = rng.choices(list(PREFIXES), list(PREFIXES.values()))[0]
        text += f"{prefix}{value}{letter}{operator}{operand}={result}\n"
        value = result
    return text + f"\\boxed{{{value}}}"


def response_kind(text: str) -> str:
    """Returns "guess" for a response that boxes its answer at once, and "work" for any other."""
    return "guess" if text.startswith("\\boxed") else "work"


def toy_problems(level: str, split: str, config: ToyConfig = ToyConfig()) -> list[tuple[str, str, str, int]]:
    """Returns (id, problem, answer, number of operations): 4,096 for "train" or 1,000 for "test", all different. Of
    chains so short that there are few problems, half of these are used, and there are fewer for training.

    The same at every call. Raises ValueError for a level other than "toy" and "toy_hard" and for another split.
    """
    if level not in LEVELS or split not in ("train", "test"):
        raise ValueError(f"no problems {level!r}, {split!r}: take the level from {LEVELS} and the split train or test")
    rng = random.Random(f"{config.seed} {level}")
    least, most = config.operations[LEVELS.index(level)]
    choices = sum(map(len, OPERANDS.values()))  # of an operation
    there_are = sum(9 * choices**num_operations for num_operations in range(least, most + 1))
    problems: dict[str, int] = {}  # keeps the order
    while len(problems) < min(TEST_PROBLEMS + TRAIN_PROBLEMS, there_are // 2):
        num_operations = rng.randint(least, most)
        problems[make_problem(rng, num_operations, config.gaps)] = num_operations
    chosen = list(problems.items())
    chosen = chosen[:TEST_PROBLEMS] if split == "test" else chosen[TEST_PROBLEMS:]
    return [(f"{level}-{split}-{i}", text, solve(text), n) for i, (text, n) in enumerate(chosen)]


def make_document(rng: random.Random, config: ToyConfig) -> tuple[str, str]:
    """Returns a problem and a response of the corpus."""
    level = rng.choices((0, 1), config.documents)[0]
    problem = make_problem(rng, rng.randint(*config.operations[level]), config.gaps)
    if rng.random() < config.guesses[level]:
        return problem, make_guess(rng, problem, config.copied_guesses)
    return problem, make_work(rng, problem, config.slips[level])


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer with one token for each character, except that `\\boxed{`, the prefixes and the operations
    (`-7`) are single tokens. Its chat template is the bare content.
    """
    operations = [operator + operand for operator, operands in OPERANDS.items() for operand in operands]
    pieces = ["\\boxed{", *filter(None, PREFIXES), *operations]
    characters = "0123456789+-*=? \n\\{}" + ascii_lowercase
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *pieces, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    pattern = "|".join(map(re.escape, pieces)) + r"|[\s\S]"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return fast


def school_batch(rng: random.Random, config: ToyConfig, tokenizer, left_out: set[str]) -> tuple[Tensor, Tensor]:
    """Returns tokens and targets, (documents, longest) each: work without slips on problems of every length.

    Only the responses are targets.
    """
    rows: list[Tensor] = []
    targets: list[Tensor] = []
    while len(rows) < config.batch_size:
        problem = make_problem(rng, rng.randint(config.operations[0][0], config.operations[1][1]), config.gaps)
        if problem in left_out:
            continue
        prompt, response = tokenizer([problem, make_work(rng, problem, slips=0.0) + "<eos>"])["input_ids"]
        rows.append(torch.tensor(prompt + response))
        targets.append(torch.tensor([-100] * len(prompt) + response))
    return pad_sequence(rows, batch_first=True), pad_sequence(targets, batch_first=True, padding_value=-100)


def corpus_batch(rng: random.Random, config: ToyConfig, tokenizer, left_out: set[str]) -> tuple[Tensor, Tensor]:
    """Returns tokens and targets, (rows, row_tokens) each: documents one after another, the last one cut. All tokens
    are targets."""
    texts = []
    for _ in range(config.batch_size):
        text = ""
        while len(text) < 4 * config.row_tokens:  # a token has fewer than four characters on average
            problem, response = make_document(rng, config)
            if problem not in left_out:
                text += f"{problem}{response}<eos>"
        texts.append(text)
    tokens = torch.tensor([ids[: config.row_tokens] for ids in tokenizer(texts)["input_ids"]])
    return tokens, tokens


def pretrain(config: ToyConfig) -> Qwen3ForCausalLM:
    """Returns the base model. The number of steps is fixed and torch uses one thread, so that a machine makes the same
    weights again; two threads that wait for one another on busy cores would also take six times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _pretrain(config)
    finally:
        torch.set_num_threads(threads)


def _pretrain(config: ToyConfig) -> Qwen3ForCausalLM:
    tokenizer = make_tokenizer()
    special = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model_config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        head_dim=config.head_dim,
        num_attention_heads=config.heads,
        num_key_value_heads=config.key_value_heads,
        max_position_embeddings=512,
        initializer_range=0.05,
        tie_word_embeddings=True,
        **special,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = Qwen3ForCausalLM(model_config)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **special)

    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=config.muon_learning_rate, weight_decay=0.0),
        torch.optim.AdamW(others, lr=config.adamw_learning_rate, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    steps = config.school_steps + config.corpus_steps

    def rate(step: int) -> float:  # rises, stays flat through school, then falls to zero
        return min(1.0, (step + 1) / config.warmup_steps, (steps - step) / config.corpus_steps)

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    rng = random.Random(f"{config.seed} corpus")
    left_out = {problem for level in LEVELS for _, problem, _, _ in toy_problems(level, "test", config)}
    start = time.monotonic()
    for step in range(1, steps + 1):
        make_batch = school_batch if step <= config.school_steps else corpus_batch
        tokens, targets = make_batch(rng, config, tokenizer, left_out)
        logits = model(tokens, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for part in optimizers + schedules:
            part.step()
        if step % 100 == 0:
            seconds = time.monotonic() - start
            print(f"toy: step {step} of {steps}, loss {loss.item():.2f} nats/token, {seconds:.0f} s", flush=True)
    return model.eval()


SHIPPED = Path(__file__).with_name("toy_model")  # of the default ToyConfig


def recipe(config: ToyConfig) -> str:
    """Returns a hash of the whole config, which identifies the folder of its weights."""
    return hashlib.sha256(repr(config).encode()).hexdigest()[:12]


def write_model(config: ToyConfig, folder: Path) -> None:
    """Pre-trains the miniature and writes model, tokenizer and recipe.txt to an existing folder."""
    pretrain(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    (folder / "recipe.txt").write_text(recipe(config) + "\n")


def toy_path(config: ToyConfig = ToyConfig()) -> Path:
    """Returns the miniature's folder: model and tokenizer as Hugging Face saves them.

    The default config's weights are in the repository. Any other miniature is made on first use, in one to three
    minutes, and kept in .cache/ of the repository or in $TOY_CACHE. Several processes may ask at once.
    """
    if config == ToyConfig():
        return SHIPPED
    cache = Path(os.environ.get("TOY_CACHE") or Path(__file__).resolve().parent.parent / ".cache")
    folder = cache / f"toy-{recipe(config)}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits here, then finds the folder
        if not folder.exists():
            print(f"toy: pre-training the miniature (once, one to three minutes) -> {folder}", flush=True)
            unfinished = Path(tempfile.mkdtemp(dir=cache))  # one left by a killed build is never taken for a model
            write_model(config, unfinished)
            unfinished.chmod(0o755)
            unfinished.rename(folder)
    return folder


if __name__ == "__main__":
    SHIPPED.mkdir(exist_ok=True)
    write_model(ToyConfig(), SHIPPED)
