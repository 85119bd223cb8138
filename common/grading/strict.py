r"""The strict verdict: whether the content of the last box means the same as the gold answer.

Plain numbers, tuples, sets and words are compared here; other expressions are read and compared by math-verify, which
only the worker processes import.
"""

import re
from fractions import Fraction
from functools import lru_cache

IN_TEXT = r"\\(?:text|textrm|textit|textbf|textnormal|mbox|mathrm|mathbf|rm)\s*"
TEXT = IN_TEXT + r"\{([^{}]*)\}"
MAGNITUDE = {"thousand": 3, "million": 6, "billion": 9}
MAGNITUDE_WORD = re.compile(rf"\s*({IN_TEXT}\{{\s*)?\b({'|'.join(MAGNITUDE)})\b(?(1)\s*\}})")
AND_OR = re.compile(rf",?\s*{IN_TEXT}\{{\s*(?:and|or)\s*\}}|,?\s+(?:and|or)\s+")
UNIT_NAME = (  # outside \text{} only these, lest 5x or 2k lose their letter
    r"(?:units?|cents?|dollars?|degrees?|percent|inch(?:es)?|feet|foot|ft|yards?|miles?|mph|met(?:er|re)s?|seconds?|minutes?"
    r"|hours?|hrs?|days?|weeks?|months?|years?|people|ways|[kcmnμ]?m|[km]?g|[mn]?s|[kMG]?Hz|k?J|[kMG]?eV|erg|K|k?W|m?V|m?A|N"
    r"|k?Pa|mol|M|L|\\AA|Å|AU|[kM]?pc|rad|radians?)"
)
POWER = r"(?:\s*\^\s*\{?-?\d\}?)?"
UNIT = re.compile(
    rf"\s*(?:{TEXT}{POWER}|(?<=[\d}}\s]){UNIT_NAME}{POWER}(?:\s*/\s*{UNIT_NAME}{POWER})*"
    r"|(?<=\d)(?:\s+[A-Za-z]{3,})+|\\pmod\{\d+\}"  # 3 red bolts
    r"|(?<=\d)_\{?\d+\}?)$"  # the base of a number: 52_8
)
DECIMAL = r"(?:\d{1,3}(?:[, ]\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)"
EXPONENT = r"(?:\{\s*([+-]?\d{1,3})\s*\}|([+-]?\d{1,3}))"
SCIENTIFIC = re.compile(rf"(?:({DECIMAL})(?:[eE]|\s*(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*)|10\s*\^\s*){EXPONENT}")
REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\{(\d+)\}")
FRACTION = re.compile(
    rf"(?:(\d+)\s*(?=\\|\s\d))?"  # the whole number of a mixed fraction
    rf"(?:\\frac\{{\s*([+-]?{DECIMAL})\s*\}}\{{\s*({DECIMAL})\s*\}}|\s*({DECIMAL})\s*/\s*({DECIMAL}))"
)
NAME = r"(?:\\[A-Za-z]+|[A-Za-z])(?:_(?:\{\w+\}|\w+))?(?:\([a-z]\))?"
ASSIGNMENT = re.compile(rf"({NAME}|\({NAME}(?:,\s*{NAME})+\))\s*(?:=|\\in(?![a-z]))\s*([^=]+)")
RELATION = re.compile(r"[<>]|\\[lg]eq?(?![a-z])")
DEGREE = r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))"
UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", "\u00a0": " "}
    | {"√": r"\sqrt ", "∅": r"\emptyset ", "≤": r"\le ", "≥": r"\ge ", "∪": r"\cup "}
)


def clean(answer: str) -> str:
    """Gives an answer without what has no meaning: spacing, dollars, sizes of brackets, degree and percent signs."""
    s = answer.translate(UNICODE)
    s = s.replace(r"\$", "").replace("$", "").replace(r",\!", "").replace("{,}", ",")
    s = re.sub(r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|quad|qquad)(?![A-Za-z])|(?<!\\)\\[!;:]", "", s)
    s = re.sub(r"(?<!\\)\\[, ]|~|\s+", " ", s)
    s = re.sub(rf"(\\(?:sin|cos|tan|cot|sec|csc)\s*\(?\s*)(\d+(?:\.\d+)?)\s*{DEGREE}", r"\1(\2\\pi/180)", s)
    s = re.sub(rf"{DEGREE}|\\?%", "", s)
    s = AND_OR.sub(",", s)
    s = MAGNITUDE_WORD.sub(lambda found: rf" \times 10^{{{MAGNITUDE[found[2]]}}}", s)
    s = re.sub(r"\^\s*\{?\s*\\prime\s*\}?", "'", s).replace(r"\varnothing", r"\emptyset")
    s = re.sub(r"\\mathrm\{([ei])\}", r"\1", s)
    s = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", s)
    s = re.sub(r"\\frac\s*(\d)", r"\\frac{\1}", s)
    s = re.sub(r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}", s)
    s = re.sub(r"(?<![\\A-Za-z])(?:np\.)?(arcsin|arccos|arctan|sin|cos|tan|ln|log|exp)(?![A-Za-z])", r"\\\1", s)
    s = re.sub(r"\\exp\s*\{([^{}]*)\}", r"e^{\1}", s)
    s = re.sub(r"(?<![A-Za-z])\\?sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", s)
    s = re.sub(r"_\{(\w)\}", r"_\1", s)
    return s.strip().removesuffix(".").strip()


def split_unit(s: str) -> tuple[str, str]:
    """Gives a cleaned answer without its unit or number base (52_8), and that in one spelling."""
    body, unit = s, ""
    while (found := UNIT.search(body)) and found.start() > 0:
        body, unit = body[: found.start()], found[0] + unit
    unit = re.sub(r"[^a-z0-9/]", "", re.sub(TEXT, r"\1", unit).lower())
    return body.strip(), unit.removesuffix("s")


def number(s: str) -> Fraction | None:
    r"""Gives the exact value of a cleaned answer if a number: 2,125, 4.5 \times 10^3, 1\frac{4}{5}, .\overline{3}."""

    def value(digits: str) -> Fraction:
        return Fraction(re.sub("[, ]", "", digits).removesuffix("."))

    sign = -1 if s.startswith("-") else 1
    s = s.removeprefix("-" if sign < 0 else "+").strip()
    try:
        if found := re.fullmatch(DECIMAL, s):
            return sign * value(s)
        if found := SCIENTIFIC.fullmatch(s):
            return sign * value(found[1] or "1") * Fraction(10) ** int(found[2] or found[3])
        if found := REPEATING.fullmatch(s):
            fixed, period = "0" + found[1] + found[2], found[3]
            return sign * Fraction(int(fixed + period) - int(fixed), 10 ** len(found[2]) * (10 ** len(period) - 1))
        if found := FRACTION.fullmatch(s):
            whole, top, bottom = found[1] or "0", found[2] or found[4], found[3] or found[5]
            top_sign = -1 if top.startswith("-") else 1
            return sign * (value(whole) + top_sign * value(top.lstrip("+-")) / value(bottom))
    except (ValueError, ZeroDivisionError):  # more digits than Python converts; a zero below the line
        pass
    return None


def elements(s: str) -> tuple[str, list[str]]:
    r"""Gives the kind of a cleaned answer and its parts.

    "()" "[]" "(]" "[)" for tuples and intervals; "set" for \{a, b\}, plain a, b and a \pm b; "" and one part else.
    """
    plain = s.replace(r"\{", "⟨").replace(r"\}", "⟩")
    parts, depth, start, whole = [], 0, 0, plain[:1] in "([⟨" and plain[-1:] in ")]⟩"
    for i, c in enumerate(plain):
        depth += (c in "([{⟨") - (c in ")]}⟩")
        whole = whole and (depth > 0 or i == len(plain) - 1)
        if c in ",;" and depth == 0:
            parts.append(plain[start:i])
            start = i + 1
    parts.append(plain[start:])
    if whole and len(plain) > 2:
        kind = "set" if plain[0] == "⟨" else plain[0] + plain[-1]
        inner_kind, parts = elements(plain[1:-1].replace("⟨", r"\{").replace("⟩", r"\}"))
        return (inner_kind, parts) if len(parts) == 1 and kind != "set" else (kind, parts)
    parts = [p.replace("⟨", r"\{").replace("⟩", r"\}").strip() for p in parts]
    if r"\pm" in s:
        signs = (("+", "-"), ("-", "+"))
        parts = [p.replace(r"\pm", upper).replace(r"\mp", lower) for p in parts for upper, lower in signs]
        parts = list(dict.fromkeys(parts))
    return ("set" if len(parts) > 1 else ""), parts


def close(a: Fraction, gold: Fraction, tolerance: float) -> bool:
    return a == gold or abs(a - gold) < Fraction(str(tolerance)) * abs(gold)


@lru_cache(4096)
def same_answer(answer: str, gold: str, tolerance: float = 0.0) -> bool:
    """Says whether two answers mean the same.

    Numbers exactly or within a relative tolerance, tuples and intervals in order, sets and lists in any order, words by
    spelling, the rest by math-verify.
    """
    a, g = whole_a, whole_g = clean(answer), clean(gold)
    left, right = ASSIGNMENT.fullmatch(a), ASSIGNMENT.fullmatch(g)
    if left and (not right or left[1] == right[1]):
        a = left[2].strip()
    if right and (not left or left[1] == right[1]):
        g = right[2].strip()
    spelled_a, spelled_g = (re.sub(r"(?<!\d) | (?!\d)", "", re.sub(TEXT, r"\1", s)) for s in (a, g))  # 7 8 is not 78
    if spelled_a == spelled_g:
        return a != ""
    if word := re.fullmatch(TEXT, g):
        spelling = [re.sub(r"[^\w]", "", re.sub(TEXT, r"\1", w)) for w in (a, word[0])]
        return spelling[0] == spelling[1] or len(spelling[1]) > 1 and spelling[0].casefold() == spelling[1].casefold()
    if (inner := re.fullmatch(TEXT, a)) and re.search(r"[\d,]", inner[1]):
        a = inner[1].strip()
    if RELATION.search(a) or RELATION.search(g):
        return same_expression(a, g, tolerance)
    (a, unit), (g, gold_unit) = split_unit(a), split_unit(g)
    if unit and gold_unit and unit != gold_unit:
        return False
    x, y = number(a), number(g)
    if x is not None and y is not None:
        return close(x, y, tolerance) or ("%" in answer and "%" not in gold and close(x / 100, y, tolerance))
    (kind, parts), (gold_kind, gold_parts) = elements(a), elements(g)
    if kind or gold_kind:
        if kind != gold_kind or len(parts) != len(gold_parts):
            return False
        if kind != "set":
            return all(same_answer(p, q, tolerance) for p, q in zip(parts, gold_parts, strict=True))
        for q in gold_parts:
            match = next((p for p in parts if same_answer(p, q, tolerance)), None)
            if match is None:
                return False
            parts.remove(match)
        return True
    if "=" in whole_a and "=" in whole_g and same_expression(whole_a, whole_g, tolerance):
        return True
    return same_expression(parts[0], gold_parts[0], tolerance)


# ---------------------------------------------------------------- math-verify (imported in the workers only)


def same_expression(answer: str, gold: str, tolerance: float) -> bool:
    """Compares two LaTeX expressions: constants by value (relative 1e-12, or the tolerance), others by math-verify."""
    import sympy

    expressions = [[e for e in read_answer(scientific(s)) if not isinstance(e, str)] for s in (answer, gold)]
    if not all(expressions):
        return False
    a, g = expressions[0][0], expressions[1][0]
    if all(isinstance(e, sympy.Expr) for e in (a, g)):
        if any(e.has(sympy.zoo, sympy.nan) for e in (a, g)):  # \gamma(...) is read as a function and may meet a pole
            return False
        a, g = (e.subs({symbol: sympy.I for symbol in e.free_symbols if symbol.name == "i"}) for e in (a, g))
    if all(isinstance(e, sympy.Expr) and e.is_number for e in (a, g)):
        a, g = a.doit(), g.doit()
        if a.is_Rational and g.is_Rational:
            return close(*(Fraction(int(e.p), int(e.q)) for e in (a, g)), tolerance)
        x, y = sympy.N(a, 30), sympy.N(g, 30)
        if y == 0 or not (y.is_finite and x.is_finite):
            return bool(sympy.simplify(a - g) == 0) or x == y
        return bool(abs(x - y) <= max(tolerance, 1e-12) * abs(y))
    return verify(g, a, allow_set_relation_comp=True)  # 2 < x < 5 is (2,5)


def scientific(s: str) -> str:
    r"""Writes a number in e-notation as a \times 10^{b}, since math-verify reads 4.5e33 as 4.5 * e * 33."""
    return re.sub(rf"(?<![\w.])({DECIMAL})[eE]([+-]?\d+)", r"\1 \\times 10^{\2}", s)


@lru_cache(4096)
def read_latex(s: str, config=None) -> list:
    from math_verify import LatexExtractionConfig, parse

    return parse(rf"\boxed{{{s}}}", [config or LatexExtractionConfig()], parsing_timeout=None)


def read_answer(s: str) -> list:
    """Reads a whole answer or nothing, and no t of 2t as tons: left alone, math-verify does both."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    normalization = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True)
    return read_latex(s, LatexExtractionConfig(try_extract_without_anchor=False, normalization_config=normalization))


def verify(gold, answer, **settings) -> bool:
    import math_verify

    return math_verify.verify(gold, answer, float_rounding=6, timeout_seconds=None, **settings)
