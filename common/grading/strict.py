r"""The strict verdict: whether the content of the last box means what the gold answer means.

`same_answer` reads both (reader.py states the grammar), decides from the gold what kind of answer was asked for and
compares by the rule of that kind. Each rule is a function here, named after its kind:

    number, expression     `same_value`       exactly, or within the data set's relative tolerance
    number with a unit     `same_quantity`    in the same dimension, converted; a unit may be left out
    percent, angle         `same_percent`, `same_angle`
    number in a base       `same_based`       the digits with or without the base, or the value
    equation               `same_equation`    the same solutions: sides in any order, a constant factor, solved for a name
    inequality             `same_inequality`, `same_order`
    interval, union        `same_region`      intervals, inequalities, set builders: as sets of real numbers
    tuple, vector          `same_tuple`       in order; by names; in any brackets that mean the same
    set, list              `same_collection`  in any order, each element once
    matrix                 `same_matrix`
    ratio, time            `same_ratio`, `same_time`
    choice, word           `same_choice`, `same_text`

What cannot be read is right only if it is spelled like the gold answer. Nothing here evaluates text as code, and no
comparison runs long: numbers are bounded in size, expressions in steps (values.py).
"""

import itertools
import re
from fractions import Fraction
from functools import lru_cache

from common.grading import values
from common.grading.expressions import product_of
from common.grading.reader import read
from common.grading.tokens import Unreadable, characters
from common.grading.values import NoValue, parts_of, unknowns

MAX_SIGNS = 4  # of plus-minus in one answer
Node = tuple


@lru_cache(8192)
def same_answer(answer: str, gold: str, tolerance: float = 0.0) -> bool:
    """Says whether an answer means the same as the gold answer.

    Args:
        answer: the content of a box.
        gold: the right answer, as the data set writes it.
        tolerance: relative error that a number may have.
    """
    a, g = spelling(answer), spelling(gold)
    if a == g:
        return a != ""
    if not a or not g:
        return False
    try:
        return compare(answer, gold, tolerance)
    except (Unreadable, NoValue, RecursionError, OverflowError, ZeroDivisionError, ValueError):
        return False


def spelling(text: str) -> str:
    """Returns a text without spaces, delimiters and sizes, for the comparison of what cannot be read."""
    text = characters(text.strip()) if len(text) < 100_000 else text
    text = re.sub(r"\\(?:left|right|displaystyle|quad|qquad|bigl|bigr|Bigl|Bigr)(?![A-Za-z])|\\[!,;: ]", " ", text)
    text = re.sub(r"\\[\[\]()]|(?<!\\)\$", "", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(
        r"(?<![\dA-Za-z]) | (?![\dA-Za-z])|(?<=[A-Za-z]) (?=\d)|(?<=\d) (?=[A-Za-z])", "", re.sub(r"\s+", " ", text)
    )
    return text.strip().rstrip(".").strip()


def compare(answer: str, gold: str, tolerance: float) -> bool:
    """Compares all readings that the gold answer's kind allows."""
    if (choice := gold_choice(gold)) and same_choice(answer, choice):
        return True
    if words := capitals(gold):
        return same_capitals(answer, words)
    g = read(gold)
    if g is None:
        return False
    if g[0] == "base" and spelling(answer).strip("()") == g[3]:
        return True
    value = g[1] if g[0] == "qty" else g
    plain = not unknowns(value)
    tried = set()
    for loose, commas in ((False, "auto"), (True, "auto"), (False, "number"), (False, "list")):
        if loose and not (plain and value[0] not in ("text", "set", "rel")):
            continue
        if (
            commas == "number"
            and not (plain and value[0] in NUMERIC)
            or commas == "list"
            and value[0] not in ("list", "set")
        ):
            continue
        a = read(answer, loose, commas)
        if a is None or a in tried:
            continue
        tried.add(a)
        for log_base in (None, 10) if "log" in answer + gold else (None,):
            if same(a, g, Context(tolerance, log_base)):
                return True
    return False


NUMERIC = {"num", "add", "neg", "mul", "div", "pow", "call", "const", "pct", "deg", "pm", "base", "mod"}


class Context:
    """What a comparison depends on besides the two answers: the relative tolerance, and what \\log means (10, None: e)."""

    def __init__(self, tolerance: float, log_base: int | None = None):
        self.tolerance, self.log_base = tolerance, log_base


# ---------------------------------------------------------------- choices and words


def gold_choice(gold: str) -> str | None:
    r"""Returns the letter of a gold answer that is a choice: C, (C), \text{(C)}; with its text: \text{(A)} 0."""
    plain = re.sub(
        r"\\(?:text\w{0,6}|math\w\w|boldsymbol|mbox|bf|rm|boxed|left|right)(?![A-Za-z])|[{}$\s]|\\[,;:! \[\]()]",
        "",
        gold,
    )
    found = (
        re.fullmatch(r"\(([A-J])\)[.,]?", plain)
        or re.fullmatch(r"([A-J])[.,]?", plain)
        or re.match(r"\(([A-J])\)[^,(]", plain)
    )
    return found[1] if found else None


def same_choice(answer: str, letter: str) -> bool:
    r"""Compares a choice, with or without brackets and its text: C, (C), \textbf{(C)}\ 12, C. 12, Option C."""
    plain = re.sub(
        r"\\(?:text\w{0,6}|math\w\w|boldsymbol|mbox|bf|rm|boxed|left|right|quad|qquad)(?![A-Za-z])|[{}$]|\\[,;:! \[\]()]|~",
        " ",
        answer,
    )
    plain = re.sub(r"\s+", " ", plain).strip()
    plain = re.sub(r"^(?:(?:the )?(?:correct )?(?:answer|option|choice)(?: is|:)? )+", "", plain, flags=re.I)
    found = re.fullmatch(r"([A-Z])\s?[.,]?", plain) or re.match(r"\(\s?([A-Z])\s?\)(?!\s?(?:,|and\b|or\b|&|\())", plain)
    found = found or re.match(r"([A-Z])\s?[.):]\s(?!.*\b[A-Z]\s?[.):]\s)", plain)
    return found is not None and found[1] == letter


def is_row(letters: str) -> bool:
    """Whether letters are compared as a row: all capitals, or a capital and small letters with a vowel among them."""
    return (
        len(letters) > 1
        and letters.isascii()
        and letters.isalpha()
        and (letters.isupper() or letters.istitle() and bool(set(letters.lower()) & set("aeiou")))
    )


def capitals(text: str) -> list[str] | None:
    """Returns the sides of an answer that is a row of letters with a capital, or an equation of two: ACF, MR=SRMC."""
    plain = re.sub(
        r"\\(?:text\w{0,6}|math\w\w|mbox|bf|rm|boldsymbol)(?![A-Za-z])|[{}$~]|\\[,;:! \[\]()]", "", text
    ).strip()
    sides = [side.strip().rstrip(".") for side in plain.split("=")]
    if len(sides) > 2 or not is_row(sides[-1]):
        return None
    if len(sides) == 2 and not re.fullmatch("[A-Za-z]+", sides[0]):
        return None
    return sides


def same_capitals(answer: str, gold: list[str]) -> bool:
    """Compares rows of letters by their spelling, and the two sides of an equation of them in any order."""
    words = capitals(answer)
    if words is None:
        node = read(answer)
        node = node and without_name(node)
        return len(gold) == 1 and node is not None and same_text(node, ("text", tuple(gold)))
    if len(words) == 2 and len(gold) == 1 and len(words[0]) == 1:  # x = ACF
        words = words[1:]
    if len(words) != len(gold):
        return False
    orders = (words, words[::-1]) if len(words) == 2 else (words,)
    return any(all(same_words((x,), (y,)) for x, y in zip(order, gold, strict=True)) for order in orders)


ARTICLES = {"a", "an", "the"}


def bare_words(words: tuple) -> list[str]:
    return [w for w in words if w.lower() not in ARTICLES or len(words) == 1]


def same_words(a: tuple, g: tuple) -> bool:
    """Compares spellings; capitals count where a word is a single letter or a row of capitals (segments, codes)."""
    a, g = bare_words(a), bare_words(g)
    if len(a) != len(g):
        return "".join(a) == "".join(g)

    def same(v: str, w: str) -> bool:
        if v == w:
            return True
        code = len(w) < 2 or w.isupper() and not set(w) & set("AEIOUY") or len(w) == 2 and w.isupper() and w != "NO"
        natural = all(x.islower() or x.isupper() or x.istitle() for x in (v, w))
        return natural and not code and v.lower() == w.lower()

    return all(same(v, w) for v, w in zip(a, g, strict=True))


def text_of(node: Node) -> tuple | None:
    """The words of a node that is a word or a name."""
    if node[0] == "text":
        return node[1]
    if node[0] == "group":
        return text_of(node[1])
    if node[0] == "sym":
        return (node[1],)
    if node[0] == "mul" and all(f[0] == "sym" and len(f[1]) == 1 or f[0] == "const" for f in node[1]):
        return ("".join(f[1] for f in node[1]),)
    if node[0] == "list" and all(text_of(item) for item in node[1]):
        return tuple(w for item in node[1] for w in (*text_of(item), "and"))[:-1]
    return None


def same_text(a: Node, g: Node) -> bool:
    """Compares words by their spelling: an ellipse is ellipse, "The function is even" is even."""
    words, gold_words = text_of(a), text_of(g)
    if words is None or gold_words is None:
        return False
    if same_words(words, gold_words):
        return True
    lower = [w.lower() for w in words]
    for verb in ("is", "are"):
        if verb in lower and verb not in [w.lower() for w in gold_words]:
            return same_words(words[lower.index(verb) + 1 :], gold_words)
    return False


# ---------------------------------------------------------------- the kinds


def same(a: Node, g: Node, context: Context) -> bool:
    """Compares two trees by the rule of the gold's kind."""
    a, g = simplified(a), simplified(g)
    if a == g:
        return not any(part[0] == "inf" for part in parts_of(g))
    if has_signs(a) or has_signs(g):
        return same(spread(a), spread(g), context)
    if a[0] == "rel" and g[0] != "rel" and (found := name_and_value(a)) and a[2] != ("in",) and not is_region(g):
        return same(found[1], g, context)
    if g[0] == "rel" and a[0] != "rel" and (found := name_and_value(g)) and g[2] != ("in",) and named_values(a) is None:
        return same(a, found[1], context)
    kind, gold_kind = a[0], g[0]
    if (
        gold_kind == "set"
        and len(g[1]) == 1
        and g[1][0][0] != "set"
        and (kind not in ("set", "builder", "union", "tuple") or kind == g[1][0][0])
    ):
        return same(a, g[1][0], context)
    if (
        kind == "set"
        and len(a[1]) == 1
        and (gold_kind not in ("set", "builder", "union", "tuple", "inter", "minus") or gold_kind == a[1][0][0])
    ):
        return same(a[1][0], g, context)
    if kind == "text" and region_of(a) or gold_kind == "text" and region_of(g):
        return same_region(a, g, context) or False
    if gold_kind == "text" or kind == "text":
        return same_text(a, g)
    if gold_kind == "time" or kind == "time":
        return same_time(a, g) or same_ratio(a, g, context)
    if gold_kind == "ratio" or kind == "ratio":
        return same_ratio(a, g, context)
    if kind == "rel" and a[2] == ("equiv",) and gold_kind != "rel" and is_name(a[1][0]):
        return same(a[1][1], g, context)
    if gold_kind == "rel" and g[2] == ("equiv",) and kind == "mod" and is_name(g[1][0]):
        return same(a, g[1][1], context)
    if gold_kind == "mod" or kind == "mod":
        return same_residue(a, g, context)
    if gold_kind == "base" or kind == "base":
        return same_based(a, g, context)
    if is_region(g) or is_region(a):
        found = same_region(a, g, context)
        if found is not None:
            return found
    if gold_kind in COLLECTIONS or kind in COLLECTIONS:
        return same_group(a, g, context)
    if gold_kind == "rel" or kind == "rel":
        return same_relation(a, g, context)
    if gold_kind == "mat" or kind == "mat":
        return same_matrix(a, g, context)
    if gold_kind == "qty" or kind == "qty":
        return same_quantity(a, g, context)
    if gold_kind == "pct" or kind == "pct":
        return same_percent(a, g, context)
    if is_angle(a) or is_angle(g):
        return same_angle(a, g, context)
    return same_value(a, g, context)


COLLECTIONS = {"list", "set", "tuple", "union", "inter", "minus", "builder"}


@lru_cache(8192)
def simplified(node: Node) -> Node:
    """Folds numbers, drops brackets around one expression, multiplies matrices by scalars."""
    kind = node[0]
    if kind in ("num", "sym", "const", "text", "time", "base"):
        return node
    if kind == "group":
        inner = simplified(node[1])
        return inner
    if kind == "neg":
        inner = simplified(node[1])
        if inner[0] == "num":
            return ("num", -inner[1])
        if inner[0] == "mat":
            return ("mat", tuple(tuple(simplified(("neg", cell)) for cell in row) for row in inner[1]))
        if inner[0] in ("qty", "pct", "deg"):
            return (inner[0], simplified(("neg", inner[1])), *inner[2:])
        if inner[0] == "base":
            return ("base", -inner[1], inner[2], inner[3][1:] if inner[3][0] == "-" else "-" + inner[3])
        if inner[0] == "tuple" and inner[1:3] in (("(", ")"), ("[", "]")):
            return ("tuple", *inner[1:3], tuple(simplified(("neg", item)) for item in inner[3]))
        return ("neg", inner)
    if kind == "mul":
        factors = [simplified(f) for f in node[1]]
        special = [f for f in factors if f[0] in ("mat", "qty", "tuple", "deg", "pct", "list", "set", "rel", "text")]
        if len(special) == 1 and special[0][0] in ("mat", "tuple"):
            rest = product_of([f for f in factors if f is not special[0]])

            def scaled(cell):
                return simplified(("mul", (rest, cell)))

            if special[0][0] == "mat":
                return ("mat", tuple(tuple(scaled(cell) for cell in row) for row in special[0][1]))
            return ("tuple", *special[0][1:3], tuple(scaled(item) for item in special[0][3]))
        if len(special) == 1 and special[0][0] == "qty":
            rest = [f for f in factors if f is not special[0]]
            return ("qty", simplified(("mul", (*rest, special[0][1]))), *special[0][2:])
        if any(f[0] not in ("deg", "pct") for f in special):
            raise Unreadable("a product of what has no product")
        number = Fraction(1)
        others = []
        for f in factors:
            if f[0] == "num" and number.numerator.bit_length() + f[1].numerator.bit_length() < 4000:
                number *= f[1]
            else:
                others.append(f)
        if not others:
            return ("num", number)
        if number != 1:
            others.insert(0, ("num", number))
        return product_of(others)
    if kind == "div":
        top, bottom = simplified(node[1]), simplified(node[2])
        if top[0] == "num" and bottom[0] == "num" and bottom[1] != 0:
            return ("num", top[1] / bottom[1])
        if top[0] in ("mat", "tuple"):
            return simplified(("mul", (("div", ("num", Fraction(1)), bottom), top)))
        if top[0] == "qty" and bottom[0] != "qty":
            return ("qty", simplified(("div", top[1], bottom)), *top[2:])
        return ("div", top, bottom)
    if kind == "add":
        terms = [simplified(t) for t in node[1]]
        if all(t[0] == "num" for t in terms):
            return ("num", sum(t[1] for t in terms))
        if (
            all(t[0] in ("qty", "pct") for t in terms)
            and len({t[0] for t in terms}) == 1
            and len({t[2:] for t in terms}) == 1
        ):
            return (terms[0][0], simplified(("add", tuple(t[1] for t in terms))), *terms[0][2:])
        if all(t[0] == "mat" for t in terms) and len({(len(t[1]), len(t[1][0])) for t in terms}) == 1:
            return (
                "mat",
                tuple(
                    tuple(simplified(("add", cells)) for cells in zip(*rows, strict=True))
                    for rows in zip(*(t[1] for t in terms), strict=True)
                ),
            )
        return ("add", tuple(terms))
    if kind == "pow":
        base, exponent = simplified(node[1]), simplified(node[2])
        if base[0] == "num" and exponent[0] == "num" and exponent[1].denominator == 1 and (base[1] or exponent[1] > 0):
            if abs(exponent[1]) * max(base[1].numerator.bit_length(), base[1].denominator.bit_length()) < 4000:
                return ("num", base[1] ** int(exponent[1]))
        return ("pow", base, exponent)
    if kind == "call" and node[1] == "rad":
        return ("call", "rad", (simplified(node[2][0]),))
    if kind == "qty":
        inner = simplified(node[1])
        if inner[0] == "qty":  # \$5 \text{ dollars}, 5 kg m
            if inner[2:] == node[2:]:
                return inner
            if inner[3] == (("money", 1),) and node[3] and node[3][0][0].startswith("noun"):
                return inner
            powers = dict(inner[3])
            for base, power in node[3]:
                powers[base] = powers.get(base, 0) + power
            return ("qty", inner[1], inner[2] * node[2], tuple(sorted(powers.items())))
        if not node[3] and node[2] == 1:
            return inner
        return ("qty", inner, *node[2:])
    return tuple(
        simplified(p)
        if isinstance(p, tuple) and p and isinstance(p[0], str) and isinstance(p, tuple) and p[0] in NODE_KINDS
        else tuple(
            simplified(q) if isinstance(q, tuple) else tuple(simplified(r) for r in q) if isinstance(q, list) else q
            for q in p
        )
        if isinstance(p, tuple) and p and isinstance(p[0], tuple) and p[0] and p[0][0] in NODE_KINDS
        else tuple(tuple(simplified(r) for r in q) for q in p)
        if isinstance(p, tuple)
        and p
        and isinstance(p[0], tuple)
        and p[0]
        and isinstance(p[0][0], tuple)
        and kind == "mat"
        else p
        for p in node
    )


NODE_KINDS = set(
    "num sym const add neg mul div pow pm mp call app sum prod deg pct mat tuple set builder list union inter minus rel text qty"
    " ratio time mod base group".split()
)

# ---------------------------------------------------------------- plus and minus


def has_signs(node: Node) -> bool:
    return any(part[0] in ("pm", "mp") for part in parts_of(node))


def spread(node: Node) -> Node:
    r"""Returns the list of an answer's meanings: \pm 2 is 2, -2; two \pm signs are independent, \mp goes against \pm."""
    if not has_signs(node):
        return node
    if node[0] in ("list", "set"):
        items: list[Node] = []
        for item in node[1]:
            meaning = spread(item)
            items += meaning[1] if has_signs(item) and meaning[0] == "list" else [meaning]
        items = list(dict.fromkeys(items)) if len(items) > len(node[1]) else items
        return ("list", tuple(items), (",",) * (len(items) - 1)) if node[0] == "list" else ("set", tuple(items))
    signs = [part for part in parts_of(node) if part[0] in ("pm", "mp")]
    tied = any(part[0] == "mp" for part in signs)
    if len(signs) > MAX_SIGNS:
        raise Unreadable("too many plus-minus signs")

    def resolved(node, choice):
        if not isinstance(node, tuple):
            return node
        if node and node[0] in ("pm", "mp"):
            sign = next(choice)
            inner = resolved(node[1], choice)
            return inner if (sign > 0) == (node[0] == "pm") else ("neg", inner)
        return tuple(resolved(part, choice) for part in node)

    choices = [(1,) * len(signs), (-1,) * len(signs)] if tied else itertools.product((1, -1), repeat=len(signs))
    meanings = tuple(dict.fromkeys(simplified(resolved(node, iter(choice))) for choice in choices))
    return ("list", meanings, (",",) * (len(meanings) - 1))


# ---------------------------------------------------------------- numbers and expressions


def same_value(a: Node, g: Node, context: Context) -> bool:
    """Compares numbers and expressions by value: constants to 1,000 digits or the tolerance, others at several points."""
    if a[0] == "num" and g[0] == "num":
        return values.within(a[1], g[1], context.tolerance)
    a, g = same_derivatives(a, g)
    names, gold_names = unknowns(a), unknowns(g)
    if not names and not gold_names:
        if has_function(a) or has_function(g):
            return values.same_function(a, g, 0.0, context.log_base)
        return values.same_constant(a, g, context.tolerance, context.log_base)
    return values.same_function(a, g, context.tolerance, context.log_base)


def has_function(node: Node) -> bool:
    return any(part[0] == "app" for part in parts_of(node))


def same_derivatives(a: Node, g: Node) -> tuple[Node, Node]:
    """Names functions and derivatives alike: where one side writes x(t) and the other x, x' and dx/dt, the variable is dropped."""
    applied, gold_applied = ({p[1] for p in parts_of(n) if p[0] == "app"} for n in (a, g))
    shorter = {n for n in applied ^ gold_applied if n in unknowns(a) | unknowns(g) or "'" in n}

    def bare(node):
        if not isinstance(node, tuple):
            return node
        if node[:1] == ("app",) and node[1] in shorter and all(simplified(x)[0] == "sym" for x in node[2]):
            return ("sym", node[1])
        return tuple(bare(part) for part in node)

    if shorter:
        a, g = bare(a), bare(g)

    def named(node: Node) -> set[bool]:
        return {"|" in part[1] for part in parts_of(node) if part[0] == "sym" and "'" in part[1]}

    if named(a) != named(g) and True in named(a) | named(g):

        def plain(node):
            if not isinstance(node, tuple):
                return node
            if len(node) == 2 and node[0] == "sym":
                return ("sym", node[1].split("|")[0]) if "'" in node[1] else node
            return tuple(plain(part) for part in node)

        return plain(a), plain(g)
    return a, g


def same_quantity(a: Node, g: Node, context: Context) -> bool:
    """Compares numbers with units: converted if both have one, in the same dimension; either may leave it out."""
    if a[0] == "qty" and g[0] == "qty":
        if a[3] == g[3]:
            if a[2] == g[2]:
                return same(a[1], g[1], context)
            return same(("mul", (("num", a[2] / g[2]), a[1])), g[1], context)
        return False
    if a[0] == "qty":
        return g[0] not in ("rel", *COLLECTIONS) and same(a[1], g, context)
    return same(a, g[1], context)


def same_percent(a: Node, g: Node, context: Context) -> bool:
    """Compares percentages: 25% is 25% or 25; a gold 1/4 may be answered 25%, a gold of 1 or more also by the percentage."""
    if a[0] == "pct" and g[0] == "pct":
        return same(a[1], g[1], context)
    if g[0] == "pct":
        return same(a, g[1], context)
    if same_value(("div", a[1], ("num", Fraction(100))), g, context):
        return True
    return g[0] == "num" and abs(g[1]) >= 1 and same(a[1], g, context)


def is_angle(node: Node) -> bool:
    return node[0] == "deg" or node[0] == "call" and node[1] == "rad"


def same_angle(a: Node, g: Node, context: Context) -> bool:
    r"""Compares angles: 60^\circ is 60, \pi/3 and \pi/3 radians; \pi/3 is not \pi/3 degrees."""

    def radians(node: Node) -> Node:
        return node[2][0] if node[0] == "call" and node[1] == "rad" else node

    def has_pi(node: Node) -> bool:
        return ("const", "pi") in parts_of(node)

    if g[0] == "deg":
        if a[0] == "deg":
            return same_value(a[1], g[1], context)
        if is_angle(a) or has_pi(a):
            return same_value(radians(a), g, context)
        return same_value(a, g[1], context)
    if g[0] == "call" and g[1] == "rad":
        return same_value(radians(a), radians(g), context)
    if a[0] == "deg" and not has_pi(g):
        return same_value(a[1], g, context)
    return same_value(radians(a), g, context)


def same_based(a: Node, g: Node, context: Context) -> bool:
    """Compares numbers in a base: 52_8 is 52_8, its digits 52 and its value 42, but not 52_9."""
    if a[0] == "base" and g[0] == "base":
        return a[1] == g[1] and a[2] in (g[2], 10)
    if g[0] == "base":
        return a[0] == "num" and (
            a[1] == g[1] or g[3].replace(".", "").lstrip("-").isdigit() and a[1] == Fraction(g[3])
        )
    return g[0] == "num" and a[1] == g[1]


def same_residue(a: Node, g: Node, context: Context) -> bool:
    r"""Compares 3 \pmod 7: to the same modulus as residues, else by the number before it."""
    if a[0] == "mod" and g[0] == "mod":
        if not same(a[2], g[2], context):
            return False
        left, right, modulus = a[1], g[1], g[2]
        if left[0] == right[0] == modulus[0] == "num" and modulus[1] != 0:
            return (left[1] - right[1]) % modulus[1] == 0
        return same(left, right, context)
    if a[0] == "mod":
        return same(a[1], g, context)
    return same(a, g[1], context)


def same_ratio(a: Node, g: Node, context: Context) -> bool:
    """Compares ratios by proportion; the ratio a:b may be answered by the quotient a/b."""

    def items(node: Node) -> tuple | None:
        if node[0] == "ratio":
            return node[1]
        return (("num", Fraction(node[1])), ("num", Fraction(node[2]))) if node[0] == "time" and not node[3] else None

    left, right = items(a), items(g)
    if left and right:
        if a[0] == g[0] == "time" or len(left) != len(right):
            return False
        return all(
            same_value(("mul", (x, right[0])), ("mul", (y, left[0])), Context(0.0))
            for x, y in zip(left, right, strict=True)
        ) and not values_are_zero(left, right)
    if right and len(right) == 2 and a[0] == "div":
        return same_value(a, ("div", *right), context)
    if right and len(right) == 2 and a[0] == "num" and a[1].denominator != 1:
        return same_value(a, ("div", *right), context)
    if left and len(left) == 2 and g[0] in ("div", "num"):
        return (
            g[0] == "num"
            and g[1].denominator == 1
            and left[1] == ("num", Fraction(1))
            and same_value(left[0], g, context)
            or g[0] == "num"
            and g[1].denominator != 1
            and same_value(("div", *left), g, context)
        )
    return False


def values_are_zero(left: tuple, right: tuple) -> bool:
    return left[0] == ("num", Fraction(0)) or right[0] == ("num", Fraction(0))


def same_time(a: Node, g: Node) -> bool:
    """Compares times of day: 12:00 is 12:00 p.m.; 7:30 a.m. is not 7:30 p.m."""
    if a[0] != "time" or g[0] != "time":
        return False

    def minutes(node: Node) -> int:
        hour = (
            node[1] % 12 + 12
            if node[3] == "pm" and node[1] <= 12
            else 0
            if node[3] == "am" and node[1] == 12
            else node[1]
        )
        return 60 * hour + node[2]

    if a[3] and g[3]:
        return minutes(a) == minutes(g)
    return a[1:3] == g[1:3] or minutes(a) == minutes(g)


# ---------------------------------------------------------------- tuples, lists, sets


def items_of(node: Node) -> tuple:
    if node[0] in ("list", "set"):
        return node[1]
    return node[3] if node[0] == "tuple" else (node,)


def name_and_value(node: Node) -> tuple[str, Node] | None:
    """The name and the value of x = 5, f(x) = 2x, 5 = x, AB = 5; None for other equations."""
    if node[0] != "rel" or not set(node[2]) <= {"=", "approx", "in"} or "in" in node[2] and node[2] != ("in",):
        return None
    sides, relations = node[1], node[2]
    if (
        len(sides) == 2
        and not is_name(sides[0])
        and is_name(sides[1])
        and relations == ("=",)
        and not unknowns(sides[0])
    ):
        sides = sides[::-1]
    if not is_name(sides[0], sides[-1]):
        return None
    exact = relations.index("approx") if "approx" in relations[1:] else len(relations)
    value = sides[exact] if exact else sides[1]
    if len(sides) > 2 and not true_chain(sides[1 : exact + 1]):
        return None
    return repr(sides[0]), value


def is_name(node: Node, value: Node | None = None) -> bool:
    """Whether a side of an equation only names what the other side is."""
    if node[0] == "sym":
        return True
    if node == ("const", "e") or node[0] == "group" and is_name(node[1]):
        return True
    if node[0] == "app":
        return all(argument[0] in ("sym", "num") for argument in node[2])
    if node[0] == "mul" and value is not None and not unknowns(value):  # AB = 5
        return all(f[0] == "sym" and len(f[1]) == 1 and f[1].isupper() for f in node[1])
    if node[0] == "call" and node[1] == "abs" and value is not None and not unknowns(value):
        return node[2][0][0] == "mul" and is_name(node[2][0], value)
    return False


def true_chain(sides: tuple) -> bool:
    """Whether a chain such as 5 \\times 3 = 15 is true where it has no unknowns."""
    constants = [side for side in sides if not unknowns(side) and side[0] not in COLLECTIONS | {"rel", "text"}]
    plain = [side[1] if side[0] == "qty" else side for side in constants]
    return all(same_value_quietly(side, plain[0]) for side in plain[1:])


def same_value_quietly(a: Node, g: Node) -> bool:
    try:
        return same(a, g, Context(0.0))
    except (NoValue, Unreadable):
        return False


def named_values(node: Node) -> dict[str, Node] | list[dict[str, Node]] | None:
    """Values by name: x = 3, y = 4 or (x, y) = (3, 4); a list of them for p=5, q=2; p=7, q=2."""
    if node[0] == "rel" and node[2] in (("=",), ("in",)) and node[1][0][0] == "tuple":
        names = node[1][0][3]
        if all(is_name(name) for name in names):
            value = node[1][1]
            if node[2] == ("=",) and value[:3] == ("tuple", "(", ")") and len(value[3]) == len(names):
                return dict(zip(map(repr, names), value[3], strict=True))
        return None
    if node[0] == "tuple":
        return named_values(("list", node[3], ()))
    if node[0] not in ("list", "set"):
        return None
    if all(item[0] in ("list", "tuple", "rel") for item in node[1]):
        groups = [named_values(item) for item in node[1]]
        if all(isinstance(group, dict) for group in groups):
            return groups
    pairs = [name_and_value(item) for item in node[1]]
    if not all(pairs) or len(pairs) < 2:
        return None
    names = list(dict.fromkeys(name for name, _ in pairs))
    if len(names) == len(pairs):
        return dict(pairs)
    if len(names) > 1 and len(pairs) % len(names) == 0:
        groups = [pairs[i : i + len(names)] for i in range(0, len(pairs), len(names))]
        if all([name for name, _ in group] == names for group in groups):
            return [dict(group) for group in groups]
    return None


def as_tuple(named: dict[str, Node]) -> Node:
    """A tuple of named values: x, y, z and the like in their own order, others as they are written."""
    names = list(named)
    if all(re.fullmatch(r"\('sym', '[tuvwxyz]'\)", name) for name in names):
        names = sorted(names)
    return ("tuple", "(", ")", tuple(named[name] for name in names))


def same_group(a: Node, g: Node, context: Context) -> bool:
    """Compares tuples, lists and sets; named values first, then by the gold's kind."""
    names, gold_names = named_values(a), named_values(g)
    if gold_names is not None:
        if names is not None:
            if isinstance(names, dict) != isinstance(gold_names, dict):
                names, gold_names = ([n] if isinstance(n, dict) else n for n in (names, gold_names))
            if isinstance(names, dict):
                return same_named(names, gold_names, context)
            return matched(names, gold_names, lambda x, y: same_named(x, y, context))
        if isinstance(gold_names, dict):
            ordered = as_tuple(gold_names)
            return (
                len(items_of(a)) == len(items_of(ordered))
                and a[0] in ("tuple", "list")
                and same_in_order(tuple(map(without_name, items_of(a))), items_of(ordered), context)
                and not any(name_and_value(item) for item in items_of(a))
            )
        return same_collection(a, ("list", tuple(map(as_tuple, gold_names)), ()), context)
    if names is not None:
        if isinstance(names, list):
            return same_collection(("list", tuple(map(as_tuple, names)), ()), g, context)
        ordered = as_tuple(names)
        if g[0] == "tuple":
            return same_tuple(ordered, g, context)
        if g[0] in ("list", "set") and a[0] == "list":
            if any(item[0] == "tuple" for item in items_of(g)):
                return same_collection(("list", (ordered,), ()), g, context)
            return same_collection(("list", tuple(names.values()), a[2]), g, context)
        return False
    if g[0] == "rel" and g[2] in (("=",), ("in",)):
        found = name_and_value(g)
        if found:
            other = name_and_value(a) if a[0] == "rel" else None
            if other and other[0] != found[0]:
                return False
            return same(other[1] if other else a, found[1], context)
        if g[1][0][0] == "tuple" and a[0] != "rel" and "in" in g[2]:  # (a, b) \in \{...\}
            return same(a, g[1][1], context)
    if a[0] == "rel" and a[2] in (("=",), ("in",)):
        found = name_and_value(a)
        if found:
            return same(found[1], g, context)
        if a[1][0][0] == "tuple" and "in" in a[2]:
            return same(a[1][1], g, context)
    if g[0] == "list" and a[0] == "tuple":
        if set(g[2]) <= {","} and a[1:3] == ("(", ")") and same_in_order(a[3], g[1], context):
            return True
        return False
    if a[0] == "tuple" and g[0] not in COLLECTIONS and (components := unit_vectors(g, len(a[3]))):
        return a[1:3] in (("(", ")"), ("[", "]")) and same_in_order(a[3], components, context)
    if g[0] == "tuple" and a[0] == "list":
        return g[1:3] == ("(", ")") and set(a[2]) <= {","} and same_in_order(a[1], g[3], context)
    if g[0] == "mat" and a[0] == "tuple":
        return same_matrix(a, g, context)
    if g[0] == "tuple":
        return same_tuple(a, g, context)
    if g[0] in ("list", "set"):
        return same_collection(a, g, context)
    return (
        a[0] == g[0]
        and len(a) == len(g)
        and all(
            same(x, y, context) if isinstance(x, tuple) and isinstance(y, tuple) else x == y
            for x, y in zip(a[1:], g[1:], strict=True)
        )
    )


def same_named(names: dict, gold: dict, context: Context) -> bool:
    """Compares values by name, in any order of the names."""
    return names.keys() == gold.keys() and all(same(names[name], gold[name], context) for name in gold)


def same_in_order(a: tuple, g: tuple, context: Context) -> bool:
    return len(a) == len(g) and all(same(x, y, context) for x, y in zip(a, g, strict=True))


def same_tuple(a: Node, g: Node, context: Context) -> bool:
    r"""Compares tuples, intervals and vectors in order: (1, 2), \langle 1, 2 \rangle, a column, \mathbf i + 2 \mathbf j."""
    if a[0] == "tuple":
        return a[1:3] == g[1:3] and same_in_order(a[3], g[3], context)
    if a[0] == "mat" and g[1:3] in (("(", ")"), ("[", "]")):
        return same_matrix(a, g, context)
    components = unit_vectors(a, len(g[3]))
    return components is not None and same_in_order(components, g[3], context)


def unit_vectors(node: Node, length: int) -> tuple | None:
    r"""The components of \mathbf i + 2 \mathbf j, or None."""
    names = {part[1] for part in parts_of(node) if part[0] == "sym" and part[1].endswith("̂")}
    if not names or not names <= set(("i\u0302", "j\u0302", "k\u0302")[:length]):
        return None

    def with_values(node, chosen):
        if not isinstance(node, tuple):
            return node
        if len(node) == 2 and node[0] == "sym" and str(node[1]).endswith("̂"):
            return ("num", Fraction(node[1] == chosen))
        return tuple(with_values(part, chosen) for part in node)

    if node[0] not in ("add", "neg", "mul", "div", "sym", "pow", "call"):
        return None
    if values.same_function(with_values(node, ""), ("num", Fraction(0)), 0.0) is False and not zero(
        with_values(node, "")
    ):
        return None
    return tuple(simplified(with_values(node, name)) for name in ("i\u0302", "j\u0302", "k\u0302")[:length])


def zero(node: Node) -> bool:
    try:
        return not unknowns(node) and values.same_constant(node, ("num", Fraction(0)), 0.0)
    except NoValue:
        return False


def without_name(node: Node) -> Node:
    """The value of x = 5; other nodes as they are."""
    found = name_and_value(node)
    return found[1] if found else node


def matched(a, g, same_item) -> bool:
    """Whether the items of a and g can be paired, each used once."""
    rest = list(a)
    if len(rest) != len(g):
        return False
    for y in g:
        found = next((i for i, x in enumerate(rest) if same_item(x, y)), None)
        if found is None:
            return False
        rest.pop(found)
    return True


def same_collection(a: Node, g: Node, context: Context) -> bool:
    """Compares lists and sets in any order, each element once."""
    if a[0] not in ("list", "set"):
        if len(items_of(g)) != 1:
            return False
        a = ("list", (a,), ())
    items, gold_items = items_of(a), items_of(g)
    if g[0] not in ("list", "set"):
        gold_items = (g,)

    def same_item(x: Node, y: Node) -> bool:
        name, gold_name = name_and_value(x), name_and_value(y)
        if name and gold_name:
            return name[0] == gold_name[0] and same(name[1], gold_name[1], context)
        if name and y[0] != "rel":
            return same(name[1], y, context)
        if gold_name and x[0] != "rel":
            return same(x, gold_name[1], context)
        return same(x, y, context)

    return matched(items, gold_items, same_item)


def same_matrix(a: Node, g: Node, context: Context) -> bool:
    r"""Compares matrices cell by cell; a column or a row alone may be a tuple or a sum of \mathbf i, \mathbf j."""

    def cells(node: Node) -> tuple | None:
        if node[0] == "mat":
            rows = node[1]
            return rows[0] if len(rows) == 1 else tuple(row[0] for row in rows) if len(rows[0]) == 1 else None
        return node[3] if node[0] == "tuple" and node[1:3] in (("(", ")"), ("[", "]")) else None

    if a[0] == "mat" and g[0] == "mat":
        shape = [(len(m[1]), len(m[1][0])) for m in (a, g)]
        return shape[0] == shape[1] and all(same_in_order(x, y, context) for x, y in zip(a[1], g[1], strict=True))
    if a[0] == "rel" and (found := name_and_value(a)):
        return same(found[1], g, context)
    if g[0] == "rel" and (found := name_and_value(g)):
        return same(a, found[1], context)
    if g[0] == "mat" and len(g[1]) == len(g[1][0]) == 1:
        return same(a, g[1][0][0], context)
    left, right = cells(a), cells(g)
    if left is not None and right is not None:
        return same_in_order(left, right, context)
    if right is not None and (components := unit_vectors(a, len(right))):
        return same_in_order(components, right, context)
    if left is not None and (components := unit_vectors(g, len(left))):
        return same_in_order(left, components, context)
    return False


# ---------------------------------------------------------------- equations and inequalities

ORDER = {"<": "<", "le": "<=", ">": ">", "ge": ">="}
TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def same_relation(a: Node, g: Node, context: Context) -> bool:
    """Compares equations and inequalities with each other, and x = 5 with 5."""
    found, gold_found = (name_and_value(n) if n[0] == "rel" else None for n in (a, g))
    if g[0] == "rel" and a[0] != "rel":
        if gold_found is not None:
            return same(a, gold_found[1], context)
        return not unknowns(g) and not unknowns(a) and set(g[2]) == {"="} and same_chain_value(g, a, context)
    if a[0] == "rel" and g[0] != "rel":
        if found is not None:
            return same(found[1], g, context)
        return same_chain_value(a, g, context)
    if found and gold_found and found[0] == gold_found[0] and same_quietly(found[1], gold_found[1], context):
        return True
    relations, gold_relations = a[2], g[2]
    if set(relations) == set(gold_relations) == {"="}:
        return same_equation(a, g, context)
    if set(relations) <= set(ORDER) and set(gold_relations) <= set(ORDER):
        return same_order(a, g, context) or same_inequality(a, g, context)
    if relations == gold_relations and len(a[1]) == len(g[1]):
        pairs = list(zip(a[1], g[1], strict=True))
        if all(same(x, y, context) for x, y in pairs):
            return True
        return relations == ("ne",) and same(a[1][0], g[1][1], context) and same(a[1][1], g[1][0], context)
    return False


def same_quietly(a: Node, g: Node, context: Context) -> bool:
    try:
        return same(a, g, context)
    except (NoValue, Unreadable):
        return False


def same_chain_value(a: Node, g: Node, context: Context) -> bool:
    r"""Compares a chain such as 5 \times 3 = 15 or \sqrt 2 \approx 1.41 with a value: it must be true throughout."""
    sides, relations = a[1], a[2]
    if not set(relations) <= {"=", "approx"}:
        return False
    if unknowns(sides[0]) and g[0] == "num" and asked_for(sides[0]):  # m + n = 113
        return not any(unknowns(side) for side in sides[1:]) and true_chain(sides[1:]) and same(sides[-1], g, context)
    if any(unknowns(side) for side in sides) and not unknowns(g):
        return False
    exact = relations.index("approx") if "approx" in relations else len(relations)
    return (
        true_chain(sides[: exact + 1])
        and not (unknowns(sides[0]) - unknowns(g))
        and (all(same_quietly(side, g, context) for side in sides[: exact + 1]))
    )


def asked_for(node: Node) -> bool:
    """Whether an expression may be what a problem asks for: sums, products and powers of several unknowns."""
    kinds = {part[0] for part in parts_of(node)}
    return len(unknowns(node)) > 1 and kinds <= {"sym", "num", "add", "neg", "mul", "div", "pow", "group"}


def difference(sides: tuple) -> Node:
    return ("add", (sides[0], ("neg", sides[1])))


def same_equation(a: Node, g: Node, context: Context) -> bool:
    """Compares equations: the differences of the sides are proportional, or one is solved for a name of the other."""
    if len(a[1]) != len(g[1]) or len(g[1]) > 2:
        return len(a[1]) == len(g[1]) and (
            same_in_order(a[1], g[1], context) or same_in_order(a[1][::-1], g[1], context)
        )
    a, g = same_derivatives(a, g)
    left, right = difference(a[1]), difference(g[1])
    if not unknowns(g):
        return same_in_order(a[1], g[1], context) or same_in_order(a[1][::-1], g[1], context)
    if values.same_function(right, ("num", Fraction(0)), 0.0, context.log_base):  # an identity is its own two sides
        return same_sides(a[1], g[1], context) or same_sides(a[1][::-1], g[1], context)
    if values.proportional(left, right, False, context.log_base):
        return True
    return solves(left, g[1], context) or solves(right, a[1], context)


def same_sides(a: tuple, g: tuple, context: Context) -> bool:
    return all(commuted(x) == commuted(y) for x, y in zip(a, g, strict=True))


def commuted(node):
    """A tree whose sums and products are in a fixed order."""
    if not isinstance(node, tuple):
        return node
    parts = tuple(commuted(part) for part in node)
    return (parts[0], tuple(sorted(parts[1], key=repr))) if node[:1] in (("add",), ("mul",)) else parts


def solves(difference: Node, sides: tuple, context: Context) -> bool:
    """Whether name = expression solves an equation that is linear in that name."""
    name, expression = sides if sides[0][0] == "sym" else sides[::-1]
    if name[0] != "sym" or name[1] in unknowns(expression) or name[1] not in unknowns(difference):
        return False

    def put(node, value):
        if not isinstance(node, tuple):
            return node
        return value if node == name else tuple(put(part, value) for part in node)

    if any(part[0] in ("call", "pow", "app") and name[1] in unknowns(part) for part in parts_of(difference)):
        return False
    ahead, behind = (put(difference, ("add", (expression, ("num", Fraction(step))))) for step in (1, -1))
    return (
        values.same_function(put(difference, expression), ("num", Fraction(0)), 0.0, context.log_base)
        and values.same_function(ahead, ("neg", behind), 0.0, context.log_base)
        and not values.same_function(ahead, ("num", Fraction(0)), 0.0, context.log_base)
    )


def same_order(a: Node, g: Node, context: Context) -> bool:
    """Compares chains of inequalities, read in either direction: 3 < x < 5 is 5 > x > 3."""
    if len(a[1]) != len(g[1]):
        return False
    signs, gold_signs = ([ORDER[r] for r in n[2]] for n in (a, g))
    if signs == gold_signs and same_quietly_in_order(a[1], g[1], context):
        return True
    return [TURNED[s] for s in reversed(signs)] == gold_signs and same_quietly_in_order(a[1][::-1], g[1], context)


def same_quietly_in_order(a: tuple, g: tuple, context: Context) -> bool:
    return all(same_quietly(x, y, context) for x, y in zip(a, g, strict=True))


def same_inequality(a: Node, g: Node, context: Context) -> bool:
    """Compares inequalities of two sides: the differences are proportional by a positive factor."""
    if len(a[2]) != 1 or len(g[2]) != 1:
        return False
    left, right = difference(a[1]), difference(g[1])
    sign, gold_sign = ORDER[a[2][0]], ORDER[g[2][0]]
    if sign != gold_sign:
        left, sign = ("neg", left), TURNED[sign]
    return sign == gold_sign and values.proportional(left, right, True, context.log_base)


# ---------------------------------------------------------------- sets of real numbers


def is_region(node: Node) -> bool:
    """Whether an answer may be a set of real numbers."""
    kind = node[0]
    if kind in ("union", "inter", "minus", "builder"):
        return True
    if kind == "tuple":
        return len(node[3]) == 2
    if kind == "rel":
        return bool(set(node[2]) & (set(ORDER) | {"ne", "in"}))
    if kind == "list":
        return any(is_region(item) and item[0] != "tuple" for item in node[1])
    return node == ("sym", "set R") or kind == "text"


class Region:
    """A set of real numbers: disjoint intervals (low, low is in, high, high is in) in ascending order, and its name."""

    def __init__(self, intervals: list, name: str | None = None):
        self.intervals, self.name = intervals, name


INFINITY = ("const", "inf")


@lru_cache(8192)
def position(node: Node):
    """Where an end of an interval lies, to 30 digits."""
    if unknowns(node):
        raise NoValue("an end with unknowns")
    value = values.constant(node, 30)
    if isinstance(value, values.mpmath.mpc):
        raise NoValue("an end that is not real")
    return value if isinstance(value, Fraction) else values.mp.mpf(value)


def before(x: Node, y: Node) -> bool:
    p, q = position(x), position(y)
    number = values.Evaluator({}).number
    with values.mp.workdps(30):
        return bool(number(p) < number(q)) and not equal(x, y)


def equal(x: Node, y: Node) -> bool:
    return x == y or same_value(x, y, Context(0.0))


def united(intervals: list) -> list:
    """Joins intervals that overlap or touch."""
    number = values.Evaluator({}).number
    with values.mp.workdps(30):
        ordered = sorted(intervals, key=lambda r: (number(position(r[0])), not r[1]))
    joined: list = []
    for low, low_in, high, high_in in ordered:
        if before(high, low) or equal(low, high) and not (low_in and high_in):
            continue
        if joined:
            last = joined[-1]
            if before(low, last[2]) or equal(low, last[2]) and (low_in or last[3]):
                if before(last[2], high):
                    joined[-1] = (*last[:2], high, high_in)
                elif equal(last[2], high):
                    joined[-1] = (*last[:3], last[3] or high_in)
                continue
        joined.append((low, low_in, high, high_in))
    return joined


def intersected(a: list, b: list) -> list:
    found = []
    for low, low_in, high, high_in in a:
        for low_b, low_b_in, high_b, high_b_in in b:
            start = (low_b, low_b_in) if before(low, low_b) else (low, low_in and (low_b_in or not equal(low, low_b)))
            end = (
                (high_b, high_b_in)
                if before(high_b, high)
                else (high, high_in and (high_b_in or not equal(high, high_b)))
            )
            found.append((*start, *end))
    return united(found)


def complement(a: list) -> list:
    low, low_in, found = ("neg", INFINITY), False, []
    for start, start_in, end, end_in in a:
        found.append((low, low_in, start, not start_in))
        low, low_in = end, not end_in
    found.append((low, low_in, INFINITY, False))
    return united([r for r in found if not equal(r[0], r[2]) or r[1] and r[3]])


REALS = [(("neg", INFINITY), False, INFINITY, False)]


def region_of(node: Node) -> Region | None:
    """The set of real numbers that an answer describes, or None."""
    kind = node[0]
    if node == ("sym", "set R"):
        return Region(REALS)
    if kind == "text":
        words = [w.lower() for w in node[1] if w.lower() not in ARTICLES]
        return (
            Region(REALS)
            if words in (["all", "real", "numbers"], ["all", "reals"], ["real", "numbers"], ["all", "real", "values"])
            else None
        )
    if kind == "set":
        if any(item[0] in COLLECTIONS | {"rel", "text", "qty"} for item in node[1]):
            return None
        return Region(united([(item, True, item, True) for item in node[1]]))
    if kind == "tuple" and len(node[3]) == 2:
        low, high = node[3]
        if low[0] in COLLECTIONS or high[0] in COLLECTIONS:
            return None
        if not before(low, high) and not (equal(low, high) and node[1:3] == ("[", "]")):
            return None
        return Region([(low, node[1] == "[", high, node[2] == "]")])
    if kind in ("union", "inter", "minus"):
        a, b = region_of(node[1]), region_of(node[2])
        if a is None or b is None or a.name and b.name and a.name != b.name:
            return None
        name = a.name or b.name
        if kind == "union":
            return Region(united(a.intervals + b.intervals), name)
        return Region(intersected(a.intervals, complement(b.intervals) if kind == "minus" else b.intervals), name)
    if kind == "rel":
        return region_of_relation(node)
    if kind == "builder":
        variable = node[1][1][0] if node[1][0] == "rel" and node[1][2] == ("in",) else node[1]
        region = region_of(node[2])
        if region is None or region.name != repr(variable):
            return None
        return Region(region.intervals)
    if kind == "list":
        return region_of_list(node)
    return None


def region_of_relation(node: Node) -> Region | None:
    """x > 3, 2 < x \\le 5, x \\ne 3, x \\in (2, 3]: a name compared with constants."""
    sides, relations = node[1], node[2]
    if relations == ("in",):
        region = region_of(sides[1])
        return Region(region.intervals, repr(sides[0])) if region and is_name(sides[0]) else None
    places = [
        i for i, side in enumerate(sides) if is_name(side) and unknowns(side) or side[0] == "app" and is_name(side)
    ]
    if len(places) != 1 or any(unknowns(side) for i, side in enumerate(sides) if i != places[0]):
        return None
    at, intervals = places[0], REALS
    if len(sides) > 3 or len(sides) == 3 and at != 1:
        return None
    for i, relation in enumerate(relations):
        other = sides[i] if i != at else sides[i + 1]
        sign = ORDER.get(relation, relation)
        if i + 1 == at:  # 3 < x
            sign = TURNED.get(sign, sign)
        if sign in ("<", "<="):
            half = [(("neg", INFINITY), False, other, sign == "<=")]
        elif sign in (">", ">="):
            half = [(other, sign == ">=", INFINITY, False)]
        elif sign in ("=", "ne"):
            half = [(other, True, other, True)]
            half = complement(half) if sign == "ne" else half
        else:
            return None
        intervals = intersected(intervals, half)
    return Region(intervals, repr(sides[at]))


def region_of_list(node: Node) -> Region | None:
    """x < 1 or x > 3, and x > 1 and x < 3: a union or an intersection of statements about one name."""
    regions = [region_of(item) if item[0] in ("rel", "tuple", "union", "set") else None for item in node[1]]
    if not all(regions):
        return None
    names = {region.name for region in regions}
    if len(names) > 1:
        return None
    separators = set(node[2])
    conditions = all(item[0] == "rel" for item in node[1])
    apart = conditions and not any(intersected(x.intervals, y.intervals) for x, y in itertools.combinations(regions, 2))
    if apart and "and" in separators:  # p > 1 and p < -3 is compared as a list
        return None
    meets = conditions and "or" not in separators and not apart
    intervals = regions[0].intervals
    for region in regions[1:]:
        intervals = intersected(intervals, region.intervals) if meets else united(intervals + region.intervals)
    return Region(intervals, names.pop())


def same_region(a: Node, g: Node, context: Context) -> bool | None:
    """Compares two sets of real numbers; None where one of them is not such a set."""
    plain = ("tuple", "set", "text")
    if all(n[0] in plain or n[0] == "list" and not any(i[0] in ("rel", "union") for i in n[1]) for n in (a, g)):
        if not (a[0] == "text" or g[0] == "text"):
            return None
    try:
        left, right = region_of(a), region_of(g)
    except (NoValue, Unreadable):
        return None
    if left is None or right is None:
        return None
    if left.name and right.name and left.name != right.name:
        return False
    return len(left.intervals) == len(right.intervals) and all(
        x[1] == y[1] and x[3] == y[3] and end(x[0], y[0], context) and end(x[2], y[2], context)
        for x, y in zip(left.intervals, right.intervals, strict=True)
    )


def end(x: Node, y: Node, context: Context) -> bool:
    """Whether two ends of intervals are the same."""
    return x == y or same_value(x, y, context)
