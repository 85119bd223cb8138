r"""Reads an answer, in LaTeX, plain text or a mixture, into a tree. No text is evaluated; what does not fit is refused.

The grammar, on the tokens of tokens.py:

    answer     = item { separator item }                 separator: , ; and or \\
    item       = [lead-in] statement [unit] [remark]     lead-in: "The area is", "Area:", \therefore, =, \approx
                                                         remark: "for all n \ge 1", \pmod{7}
    statement  = set { relation set }                    relation: = < > \le \ge \ne \in \approx \equiv and a ratio's :
    set        = sum { (\cup | \cap | \setminus) sum }
    sum        = [sign] product { sign product }         sign: + - \pm \mp
    product    = power { [* | / | nothing] power }       1\frac12 and 1 1/2 are mixed numbers
    power      = primary { ^ script | ! | ' | % | ^\circ }
    primary    = number | name | function argument | \frac | \sqrt | \binom | \sum | matrix | | sum | | ( answer )
               | interval or tuple | \{ answer \} | \{ name \mid answer \}

From `sum` on it is read by expressions.py. The tree is made of tuples whose first element names the node:

    num Fraction | sym name | const pi/e/i/inf | add (terms) | neg t | mul (factors) | div a b | pow a b | pm t | mp t
    call function (arguments) | app name (arguments) | sum/prod name low high body | deg t | pct t | mat (rows)
    tuple opening closing (items) | set (items) | builder t conditions | list (items) (separators) | group t
    union a b | inter a b | minus a b | rel (sides) (relations) | text words | qty t scale dimension
    ratio (items) | time hour minute half | mod t modulus | base value base digits

Letters keep their case. Letters in upright type (\text, \mathrm) or words in plain text are words, and a word after a
value is its unit; a letter in italics is a variable, so that 2s is twice s. The loose reading also takes "3 m" and
"3 m/s" for a length and a speed; it is for answers to a question whose answer is a number.
"""

import re
from fractions import Fraction
from functools import lru_cache

from common.grading.answers.expressions import (
    CLOSING,
    OPENING,
    RELATION_SIGNS,
    SEPARATORS,
    Expressions,
    Node,
    base_of,
    based,
    based_digits,
    list_of,
    literal,
)
from common.grading.answers.tokens import CONNECTIVES, Unreadable, tokens_of
from common.grading.answers.units import COUNTS, MAGNITUDES, UNITS, number_word, singular, unit_of

MAX_LENGTH = 4000  # characters; what is longer is compared by its spelling

RELATIONS = {"=", "<", ">", "le", "ge", "ne", "approx", "equiv", "in"}
LEAD_WORDS = set(  # words that may stand before a value without a colon or a verb
    "we get got have obtain either both the number numbers value values answer answers ratio final result total sum rs "
    "there is are then so thus hence therefore find equal equals pair pairs point points solution solutions "
    "roots".split()
)
LEAD_VERBS = {"is", "are", "equals", "be", "was", "has", "becomes"}
HEDGES = set("about approximately roughly around approx exactly only precisely therefore thus so".split())
REMARKS = set("for where with here whenever since because as".split())
MEANINGFUL = set(  # words beside a value that make it another one, or several
    "or more less fewer least most choose squared cubed factorial times plus minus not over half halves third thirds "
    "fourth quarter quarters fifth fifths sixth sixths eighth eighths tenth tenths hundredth hundredths thousandth "
    "thousandths root roots to than greater above below under up down if unless except without modulo base th st nd "
    "rd negative positive point out either maximum minimum infinitely off remainder power lakh crore myriad digit "
    "double triple twice nearly almost".split()
)
MEANINGFUL |= set(MAGNITUDES) | set(COUNTS)
LEAD_NOUNS = {"or", "base", "root", "roots", "minimum", "maximum", "remainder", "power"}  # "the minimum is 5"
RADIANS, DEGREES = {"radian", "radians", "rad", "rads"}, {"degree", "degrees", "deg", "degs"}
HALF_DAYS = {"am": "am", "pm": "pm", "noon": "pm", "midnight": "am", "oclock": "", "o'clock": ""}
POWER_WORDS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
NO_UNITS = CONNECTIVES | REMARKS | RADIANS | DEGREES | set(HALF_DAYS) | {"mod", "base", "percent"}
FILLERS = set("of the a an them in total each long wide tall away old".split())  # among the words of a unit
INTEGERS_OR_REALS = [("sym", f"set {letter}") for letter in "ZNRQ"]


class Unit:
    """Collects a unit: its scale, and the powers of its base quantities."""

    def __init__(self):
        self.scale, self.powers = Fraction(1), {}

    def times(self, scale: Fraction, dimension: tuple, power: int) -> None:
        self.scale *= scale**power
        for base, exponent in dimension:
            self.powers[base] = self.powers.get(base, 0) + exponent * power

    def result(self) -> tuple:
        return self.scale, tuple(sorted((base, power) for base, power in self.powers.items() if power))


class Reader(Expressions):
    """The part of the parser that reads answers, items, units and statements."""

    def whole(self) -> Node:
        node = self.answer()
        if self.i < len(self.tokens):
            raise Unreadable(f"{self.kind()} is left over")
        return node

    # ------------------------------------------------ answers and items

    def answer(self) -> Node:
        """A list of items, or the one item."""
        items: list[Node] = []
        separators: list[str] = []
        while True:
            while self.separator():
                pass
            if not self.kind() or self.kind() in CLOSING or self.kind() == ".":
                break
            item = self.item(first=not items)
            if item is not None:
                items.append(item)
            separator = self.separator()
            if not separator:
                break
            separators.append(separator)
        while self.accept("."):
            pass
        if len(items) == 2 and separators[:1] == [","] and is_condition(items[1], items[0]):
            items.pop()
        if not items:
            raise Unreadable("nothing")
        if len(items) == 1:
            return items[0]
        separators = separators[: len(items) - 1]
        if ";" in separators and "," in separators:  # 1,2;3,4
            groups: list[list[Node]] = [[items[0]]]
            for item, separator in zip(items[1:], separators, strict=True):
                groups[-1].append(item) if separator == "," else groups.append([item])
            return list_of([list_of(group) if len(group) > 1 else group[0] for group in groups], ";")
        return ("list", tuple(items), tuple(separators))

    def connective(self) -> str:
        found = self.value().lower() if self.kind() in ("word", "run") else ""
        return found if found in CONNECTIVES else ""

    def separator(self) -> str:
        """Reads a separator and returns it (", and" is "and"); "" if there is none."""
        found = self.connective() or (self.kind() if self.kind() in SEPARATORS else "")
        if self.kind() == "&" and not self.matrices:
            found = "and"
        if self.at_command("cup"):
            found = "or"
        self.i += bool(found)
        return self.separator() if found in SEPARATORS and self.connective() else found

    def item(self, first: bool) -> Node | None:
        r"""One item; None for a remark, such as k \in \mathbb{Z} after a comma."""
        while self.kind() in ("=", "approx", ":") or self.at_command("therefore", "to"):
            self.i += 1
        if self.at_command("max", "min") and self.kind(1) == "=":
            self.i += 2
        if self.at_command("forall") or self.word() in ("where", "for") and not first:
            self.i = self.item_end(self.i)
            return None
        self.lead_in()
        negative = self.word() in ("negative", "minus") and self.kind(1) in ("num", "cmd", "run")
        self.i += negative
        if self.kind() == "word" and not negative and (words := self.words()) is not None:
            return words
        node = self.statement()
        node = self.tail(("neg", node) if negative else node)
        if not first and node[0] == "rel" and node[2] == ("in",) and node[1][1] in INTEGERS_OR_REALS:
            return None
        return node

    def item_end(self, i: int) -> int:
        """The position behind the item that the token at i belongs to."""
        depth = 0
        while i < len(self.tokens):
            kind, value, _ = self.tokens[i]
            depth += (kind in OPENING) - (kind in CLOSING)
            if depth < 0 or depth == 0 and (kind in SEPARATORS or kind == "word" and value.lower() in CONNECTIVES):
                break
            i += 1
        return i

    def lead_in(self) -> None:
        """Skips "The area is", "Area:", "approximately" before a value."""
        while self.word() in HEDGES and self.kind(1):
            self.i += 1
        end, i, words = self.item_end(self.i), self.i, set()
        while i < end and self.tokens[i].kind == "word":
            words.add(self.tokens[i].value.lower())
            i += 1
        if i == self.i or i == end or words & {"not", "no"}:
            return
        if [token.kind for token in self.tokens[i : i + 4]] == ["(", "run", ")", "="]:  # Area(ABC) =
            i += 3
        if self.tokens[i].kind in (":", "="):
            if i + 1 < end and (i - self.i > 1 or len(self.value()) > 1):
                self.i = i + 1
        elif words <= LEAD_WORDS or self.tokens[i - 1].value.lower() in LEAD_VERBS | HEDGES:
            if not words & (MEANINGFUL - LEAD_NOUNS) or words <= LEAD_WORDS:
                self.i = i

    def words(self) -> Node | None:
        """An item of words: a number in words, or text; None where the words begin something else."""
        tokens = self.tokens[self.i : self.item_end(self.i)]
        if all(token.kind == "word" for token in tokens):
            number = self.number_in_words([token.value for token in tokens])
            if number is not None:
                return self.tail(("num", number))
        first = tokens[0].value
        if unit_of(first) and first in ("EUR", "GBP", "yen", "rupee", "USD") or first.lower() == "mod":
            return None
        if not all(token.kind in ("word", "num", "run", "-", "'", ".", "?", "!", "/", ":") for token in tokens):
            return None
        if len(first) == 1 and len(tokens) > 1 and tokens[1].kind in ("/", ":", "'", "-", "num"):
            return None
        self.i += len(tokens)
        spelled = [t.value[1] if t.kind == "num" else t.value or t.kind for t in tokens]
        return ("text", " ".join(word for word in spelled if word not in (".", "!")))

    def number_in_words(self, words: list[str]) -> Fraction | None:
        """Reads a number in words, whose first item is given: three hundred and five."""
        count = next((n for n in range(len(words), 0, -1) if number_word(words[:n]) is not None), 0)
        if not count:
            return None
        end, words = self.i + count, words[:count]
        while (
            end + 1 < len(self.tokens)
            and self.tokens[end].value == "and"
            and set(map(str.lower, words)) & set(MAGNITUDES)
        ):
            more = self.tokens[end + 1 : self.item_end(end + 1)]
            longer = words + [str(token.value) for token in more]
            if number_word(longer) is None:
                break
            words, end = longer, end + 1 + len(more)
        self.i = end
        return number_word(words)

    # ------------------------------------------------ what stands behind a value

    def tail(self, node: Node) -> Node:
        """Reads percent, degrees, a unit, a magnitude, a modulus, a base or a remark behind a value."""
        while True:
            word, following = self.word(), self.word(1)
            if word == "mod" or self.kind() == "(" and following == "mod":
                node = ("mod", node, self.after_word(lambda: self.sum()))
            elif word == "base" or following == "base" and (word == "in" or self.kind() == "("):
                self.i += word == "in"
                node = self.after_word(lambda node=node: based(node, self.subscript()))
            elif singular(word) in MAGNITUDES or word in MAGNITUDES:
                self.i += 1
                node = (
                    "mul",
                    (node, ("num", Fraction(10) ** MAGNITUDES[word if word in MAGNITUDES else singular(word)])),
                )
            elif word in COUNTS or singular(word) in COUNTS:
                self.i += 1
                node = ("mul", (node, ("num", Fraction(COUNTS[word if word in COUNTS else singular(word)]))))
            elif word in ("percent", "pct") or word == "per" and following == "cent":
                self.i += 1 + (word == "per")
                node = ("pct", node)
            elif word in DEGREES:
                scale = following if following in ("celsius", "fahrenheit", "c", "f") else ""
                self.i += 1 + bool(scale)
                node = ("qty", node, *UNITS["°" + scale[0].upper()]) if scale else ("deg", node)
            elif word in RADIANS:
                self.i += 1
                node = ("call", "rad", (node,))
            elif word in HALF_DAYS:
                self.i += 1
                node = clock(node, HALF_DAYS[word])
            elif word in REMARKS or self.at_command("forall"):
                self.i = self.item_end(self.i)
            elif (word == "to" or (word, following) == ("is", "to")) and node[0] in (
                "num",
                "ratio",
                "add",
                "mul",
                "div",
            ):
                self.i += 1 + (word == "is")
                node = ("ratio", (*(node[1] if node[0] == "ratio" else (node,)), self.tail(self.sum())))
            elif self.kind() == "(" and self.holds("in", *RELATION_SIGNS):  # 2k (k \in \mathbb{Z})
                self.i = self.item_end(self.i + 1) + 1
            elif self.kind() == "(" and self.kind(1) == "word":  # 5 (meters), 5 (rounded)
                words = self.tokens[self.i + 1 : self.item_end(self.i + 1)]
                if any(token.kind != "word" or token.value.lower() in MEANINGFUL for token in words):
                    return node
                self.i += 1
                node = self.tail(node)
                self.expect(")")
            else:
                unit = self.unit(letters=literal(node))
                if unit is None:
                    return node
                node = ("qty", node, *unit)

    def after_word(self, read):
        r"""Reads what follows the word "mod" or "base", which may stand in brackets: (mod 7), mod(7)."""
        bracket = self.accept("(")
        self.i += 1
        inner = self.accept("(")
        node = read()
        for _ in range(bracket + inner):
            self.expect(")")
        return node

    def unit(self, letters: bool = True) -> tuple | None:
        """A unit as (scale, dimension), made of words and upright symbols; None if there is none.

        Letters in italics count within a unit; in the loose reading also after a space, where `letters` is true.
        """
        start, unit, sign, prefix = self.i, Unit(), 1, 1
        found = False
        while True:
            kind, word = self.kind(), self.word()
            if found and kind == "/" or word == "per":
                sign, self.i = -1, self.i + 1
                continue
            if found and kind == "*":
                self.i += 1
                continue
            if found and kind == "(" and sign == -1:  # J/(kg K)
                self.i += 1
                scale, dimension = self.unit() or self.no_unit()
                unit.times(scale, dimension, -1)
                self.expect(")")
                sign = 1
                continue
            if self.at_command("frac") and self.kind(1) == "{":
                self.i += 1
                for power in (1, -1):
                    self.expect("{")
                    scale, dimension = self.unit() or self.no_unit()
                    unit.times(scale, dimension, power)
                    self.expect("}")
                found = True
                continue
            if word in POWER_WORDS and (not word.endswith("ed") or not found and self.kind(1) == "word"):
                prefix, self.i, found = POWER_WORDS[word], self.i + 1, True
                continue
            name = self.unit_name(found, letters)
            if name is None:
                break
            found = True
            power = sign * prefix * self.unit_power()
            sign = prefix = 1
            known = unit_of(name)
            noun = "noun " + singular(name.lower())
            if known:
                unit.times(*known, power)
            elif name.lower() not in FILLERS and (noun == "noun unit" or noun not in unit.powers):
                unit.times(Fraction(1), ((noun, 1),), power)
        if not found:
            self.i = start
            return None
        return unit.result()

    def no_unit(self):
        raise Unreadable("a unit is missing")

    def unit_name(self, within: bool, letters: bool) -> str | None:
        """Reads one name or symbol of a unit; `within` a unit after others, `letters` where italics may be one."""
        kind, word, value = self.kind(), self.word(), self.value()
        loose = within or letters and self.loose and self.i < len(self.tokens) and self.tokens[self.i].spaced
        ohm = self.at_command("Omega", ahead=1)
        if kind == "cmd":
            if value == "Omega" and (loose or within):
                self.i += 1
                return "Ω"
            if value == "mu" and self.kind(1) in ("run", "word") and (self.loose or self.kind(1) == "word"):
                if unit_of("μ" + self.value(1)):
                    self.i += 2
                    return "μ" + self.value(-1)
            return None
        if kind in ("run", "word") and value in ("k", "M", "m") and ohm:
            self.i += 2
            return value + "Ω"
        if kind == "word" and word not in NO_UNITS:
            if word in MEANINGFUL and not within:
                raise Unreadable(f"the word {word} changes the value")
            if word not in MEANINGFUL:
                self.i += 1
                return value
        if kind == "run" and loose and unit_of(value):
            self.i += 1
            return value
        return None

    def unit_power(self) -> int:
        if self.word() in ("squared", "cubed"):
            self.i += 1
            return POWER_WORDS[self.word(-1)]
        if not self.accept("^"):
            return 1
        exponent = self.script()
        sign, exponent = (-1, exponent[1]) if exponent[0] == "neg" else (1, exponent)
        if exponent[0] != "num" or exponent[1].denominator != 1 or abs(exponent[1]) > 9:
            raise Unreadable("the power of a unit")
        return sign * int(exponent[1])

    # ------------------------------------------------ statements

    def statement(self) -> Node:
        sides, relations = [self.ratio()], []
        while self.kind() in RELATIONS or self.word() in ("is", "equals") and self.word(1) != "to":
            relations.append(self.kind() if self.kind() in RELATIONS else "=")
            self.i += 1
            while self.kind() in ("=", "approx"):  # ==, =\approx
                self.i += 1
            side = self.ratio()
            sides.append(self.tail(side) if self.kind() in ("word", "(") else side)  # x = 5 \text{ cm} = 0.05 \text{ m}
        return ("rel", tuple(sides), tuple(relations)) if relations else sides[0]

    def ratio(self) -> Node:
        node = self.set_expression()
        if self.kind() != ":" or self.in_set:
            return node
        items = [node]
        while self.accept(":"):
            items.append(self.set_expression())
        if len(items) == 2 and all(t[0] == "num" and t[1].denominator == 1 for t in items) and self.kind(-1) == "num":
            hour, minute = int(items[0][1]), self.value(-1)[1]
            if len(minute) == 2 and 0 <= hour <= 24 and int(minute) < 60:
                return ("time", hour, int(minute), "")
        return ("ratio", tuple(items))

    def set_expression(self) -> Node:
        node = self.sum()
        while True:
            union = self.at_command("cup") and not self.relation_follows()
            if union or self.kind() == "run" and self.value() == "U" and node[0] in ("tuple", "set", "union"):
                kind = "union"
            elif self.at_command("cap"):
                kind = "inter"
            elif self.at_command("setminus") or self.kind() == "-" and node == ("sym", "set R"):
                kind = "minus"
            else:
                return node
            self.i += 1
            node = (kind, node, self.sum())

    def relation_follows(self) -> bool:
        r"""Whether \cup stands between statements, x < 1 \cup x > 2, rather than between sets."""
        depth = 0
        for token in self.tokens[self.i + 1 :]:
            depth += (token.kind in OPENING) - (token.kind in CLOSING)
            if depth == 0 and token.kind in RELATIONS:
                return True
            if depth < 0 or depth == 0 and (token.kind in SEPARATORS or token.kind == "word" or token.value == "cup"):
                return False
        return False


def names_in(node) -> set[str]:
    if not isinstance(node, tuple):
        return set()
    return {node[1]} if len(node) == 2 and node[0] == "sym" else set().union(*map(names_in, node))


def is_condition(item: Node, value: Node) -> bool:
    r"""Whether the second of two items says for which names the first holds: n^2, n \ge 1."""
    ordered = item[0] == "rel" and set(item[2]) <= {"<", ">", "le", "ge", "ne"}
    expression = value[0] in ("add", "mul", "div", "pow", "call", "sym", "neg")
    return ordered and expression and bool(names_in(item)) and names_in(item) <= names_in(value)


def clock(node: Node, half: str) -> Node:
    """A time of day from an hour, or hour and minute, and its half of the day."""
    if node[0] == "time":
        return (*node[:3], half)
    if node[0] == "num" and node[1].denominator == 1 and 0 <= node[1] <= 24:
        return ("time", int(node[1]), 0, half)
    raise Unreadable("a.m. or p.m. after something else than a time")


BASED = re.compile(r"(-?)\(?([0-9A-Za-z]+)(?:\.([0-9A-Za-z]+))?\)?_(?:\{\(?(\d{1,2}|[a-z]+)\)?\}|(\d{1,2}))\.?")


def read_based(text: str) -> Node | None:
    r"""Reads an answer that is a number in a base, with letters as digits or not: 52_8, A2F_{16}, (4343)_6, x = 1_2."""
    plain = re.sub(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname|rm)(?![A-Za-z])\s*\{([^{}]*)\}", r"\1", text)
    if wrapped := re.fullmatch(r"\s*\\(?:boldsymbol|mathbf|bm|displaystyle|boxed)\s*\{(.*)\}\s*", plain):
        plain = wrapped[1]
    plain = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,!;: \[\]()]|[\s$~]", "", plain).replace("{,}", "")
    found = BASED.fullmatch(re.sub(r"^[A-Za-z]=", "", plain))
    if not found:
        return None
    base, whole = base_of(found[4] or found[5]), found[2]
    if re.search("[A-Za-z]", whole) and (
        base <= 10 or len(whole) < 2 or not re.fullmatch("[0-9A-Z]+|[0-9a-z]+", whole)
    ):
        return None
    return based_digits(found[1], whole, found[3] or "", base)


@lru_cache(8192)
def read(text: str, loose: bool = False, commas: str = "auto") -> Node | None:
    """Returns the tree of an answer, or None for what the grammar does not hold.

    Args:
        text: the content of a box, or a gold answer.
        loose: whether letters after a number and a space are a unit where they can be.
        commas: how 1,234 is read outside brackets: as a "number", a "list", or by its looks ("auto").
    """
    if len(text) > MAX_LENGTH:
        return None
    if "_" in text:
        try:
            if node := read_based(text):
                return node
        except ValueError:
            pass  # its base has no such digit, or it is an ordinary subscript
    try:
        return Reader(tokens_of(text, commas), loose).whole()
    except (ValueError, RecursionError, IndexError, ZeroDivisionError):
        return None
