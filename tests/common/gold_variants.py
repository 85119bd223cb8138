"""Real gold answers, ten spellings that mean the same, and six alterations that do not."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from common.grading import tolerance_of

STOP = r"(?![A-Za-z])"


def real_golds(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields every distinct gold answer of the data sets in a folder with the name of its data set."""
    seen = set()
    for path in sorted(folder.glob("*.jsonl*")):
        opened = gzip.open if path.suffix == ".gz" else open
        dataset = path.name.split(".")[0]
        with opened(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                key = (json.loads(line)["answer"], tolerance_of(dataset))
                if key not in seen:
                    seen.add(key)
                    yield key[0], dataset


# ---------------------------------------------------------------- spellings


def plain_fractions(gold: str) -> str:
    return (
        re.sub(r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}(?!\s*[\dA-Za-z\\({^])", r"\1/\2", gold)
        if not re.search(r"(?:\d|\\l[no]g?)\s*\\[dt]?frac", gold)
        else gold
    )


def unicode(gold: str) -> str:
    signs = {
        r"\\pi": "π",
        r"\\infty": "∞",
        r"\\le": "≤",
        r"\\ge": "≥",
        r"\\cup": "∪",
        r"\\times": "×",
        r"\\theta": "θ",
        r"\\pm": "±",
    }
    for command, sign in signs.items():
        gold = re.sub(rf"{command}{STOP}\s*", sign, gold)
    gold = re.sub(r"\^\{?\\circ\}?", "°", gold)
    return re.sub(r"\\sqrt\s*\{(\d+)\}", r"√\1", gold) if "text" in gold else gold.replace("-", "−")


def reversed_terms(gold: str) -> str:
    """A sum of two terms, or a plain list, in the other order."""
    body = gold.strip().strip("$")
    if re.fullmatch(r"[^,;=<>(){}\[\]+-]+(?:, ?[^,;=<>(){}\[\]+-]+)+", body) and not re.search(
        r"\d,\d{3}|text|\\|[A-Za-z]{2}", body
    ):
        return ", ".join(reversed([part.strip() for part in body.split(",")]))
    if found := re.fullmatch(r"([^,;=<>(){}\[\]+:-]+)\+([^,;=<>(){}\[\]+:-]+)", body):
        if not re.search(r"text|mbox|pm|\\[lg]eq?|mathrm|circ|%|[A-Za-z]{4}|\.\.\.|dots", body.replace(r"\sqrt", "")):
            return f"{found[2].strip()} + {found[1].strip()}"
    return gold


def named(gold: str) -> str:
    return (
        gold if re.search(r"=|<|>|\\[lg]eq?|\\neq?|text|mbox|,|;|\\pm|[A-Za-z]{3} |: |\\in\b", gold) else f"x = {gold}"
    )


SPELLINGS: dict[str, Callable[[str], str]] = {
    "in display mathematics": lambda gold: gold if "$" in gold or r"\[" in gold else rf"\[ {gold} \]",
    "with a full stop": lambda gold: gold if gold.rstrip().endswith((".", ",")) else rf"\displaystyle {gold}.",
    "in bold": lambda gold: gold if "$" in gold or r"\[" in gold else rf"\boldsymbol{{{gold}}}",
    "brackets that grow": lambda gold: (
        gold
        if r"\left" in gold
        else re.sub(r"(?<!\\)([(\[])", r"\\left\1", re.sub(r"(?<!\\)([)\]])", r"\\right\1", gold))
    ),
    "other fractions": lambda gold: re.sub(
        rf"\\[dt]?frac{STOP}", lambda found: r"\tfrac" if found[0] == r"\dfrac" else r"\dfrac", gold
    ),
    "Unicode": unicode,
    "plain fractions": plain_fractions,
    "other spaces": lambda gold: (
        re.sub(r"(?<=[\d})]) *([+-]) *(?=[\d\\({])", r"\\, \1 \\, ", gold) if "text" not in gold else gold
    ),
    "in another order": reversed_terms,
    "with a name": named,
}

# ---------------------------------------------------------------- alterations


def last_match(pattern: str, text: str) -> re.Match | None:
    found = list(re.finditer(pattern, text))
    return found[-1] if found else None


def off_by_one(gold: str) -> str | None:
    """The last whole number of the answer is one more."""
    found = last_match(r"(?<![\d.,_{}A-Za-z^])(?<!\\!)\d+(?![\d.,}]|\\!|:)", gold)
    if found is None or "text" in gold and gold[: found.start()].strip():
        return None
    return gold[: found.start()] + str(int(found[0]) + 1) + gold[found.end() :]


def other_sign(gold: str) -> str | None:
    if re.search(r"text|mbox|\\pm|\||:|=|\\{|^\s*\$?0", gold):
        return None
    if found := re.search(r"(?<=[\w)}\s])([+-])(?=\s*[\d\\(A-Za-z])", gold[1:]):
        at = found.start() + 1
        return gold[:at] + ("-" if found[0] == "+" else "+") + gold[at + 1 :]
    body = gold.strip()
    if re.fullmatch(r"-?[\d\\][^,]*", body) and not re.search(r"infty|^-?0+$|%|circ|cup", body):
        return body[1:] if body[0] == "-" else "-" + body
    return None


def other_denominator(gold: str) -> str | None:
    if found := re.search(r"(\\[dt]?frac\s*\{[^{}]+\}\s*\{)(\d+)(\})", gold):
        return gold[: found.start(2)] + str(int(found[2]) + 1) + gold[found.end(2) :]
    return None


def other_end(gold: str) -> str | None:
    """The bracket at one end of an interval is the other kind."""
    if found := re.fullmatch(r"(.*)([\[(])(\s*-?[\d\\][^,()\[\]]*,[^,()\[\]]*)([\])])\s*", gold, re.DOTALL):
        if "infty" in found[3].split(",")[1] and "infty" in found[3].split(",")[0]:
            return None
        if "infty" not in found[3].split(",")[0]:
            return found[1] + {"(": "[", "[": "("}[found[2]] + found[3] + found[4]
        return found[1] + found[2] + found[3] + {")": "]", "]": ")"}[found[4]]
    return None


def fewer_elements(gold: str) -> str | None:
    """A list without its last element, a union without its last interval."""
    body = gold.strip().strip("$")
    if r"\cup" in body:
        return body.rsplit(r"\cup", 1)[0]
    if re.search(r"[({\[]", body.replace(r"\frac{", "").replace(r"\sqrt{", "")) or re.search(
        r"\d,\\?!?\d{3}|=|text", body
    ):
        return None
    parts = body.split(",")
    if len(parts) < 2 or not all(part.strip() for part in parts) or re.search(r"infty|\\in", parts[-1]):
        return None
    return ",".join(parts[:-1])


def other_case(gold: str) -> str | None:
    """One variable is the other letter of its pair, where it stands alone."""
    hidden = re.sub(r"\\[A-Za-z]+", lambda command: "\\" * len(command[0]), gold)
    if re.search(r"text|mbox|mathrm", gold) or re.search(r"[A-Za-z]{3}", hidden) or re.fullmatch("[A-Z]", gold.strip()):
        return None
    found = last_match(r"(?<![A-Za-z\\_^{])[A-DF-HJ-Za-df-hj-z](?![A-Za-z.])", hidden)
    if found is None or re.match(r"\s*(?:=|\()", gold[found.end() :]):
        return None
    return gold[: found.start()] + found[0].swapcase() + gold[found.end() :]


ALTERATIONS: dict[str, Callable[[str], str | None]] = {
    "off by one": off_by_one,
    "sign": other_sign,
    "denominator": other_denominator,
    "interval end": other_end,
    "an element dropped": fewer_elements,
    "letter case": other_case,
}
