r"""Reads the expressions of an answer: sums, products, powers, functions, brackets, matrices.

The grammar, and the nodes that are returned, are described in reader.py.
"""

import re
from fractions import Fraction

from common.grading.answers.tokens import (
    CIRCUMFLEX,
    CONNECTIVES,
    FUNCTION_SYNONYMS,
    FUNCTIONS,
    GREEK_NAMES,
    PLAIN_FUNCTIONS,
    PLAIN_NAMES,
    Token,
    Unreadable,
)
from common.grading.answers.units import UNITS, unit_of

Node = tuple
ONE, TWO, THREE = (("num", Fraction(n)) for n in (1, 2, 3))

OPENING = {"(", "[", "{", "\\{", "langle", "lfloor", "lceil", "open|", "begin"}
CLOSING = {")", "]", "}", "\\}", "rangle", "rfloor", "rceil", "close|", "end"}
SEPARATORS = {",", ";", "\\"}
RELATION_SIGNS = ("=", "<", ">", "le", "ge", "ne")
NOT_VALUES = set("cup cap setminus pm mp mid over choose circ to therefore forall exists".split())
FUNCTION_LETTERS = {"f", "g", "h", "F", "P", "Q"}  # f(x+1) is no product
INVERTIBLE = set("sin cos tan cot sec csc sinh cosh tanh".split())  # with the exponent -1
BASES = dict(zip("two three four five six seven eight nine ten eleven twelve".split(), range(2, 13), strict=True))
BASES |= {"sixteen": 16}


# ---------------------------------------------------------------- nodes


def product_of(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else ("mul", tuple(factors))


def list_of(items: list[Node] | tuple[Node, ...], separator: str = ",") -> Node:
    return ("list", tuple(items), (separator,) * (len(items) - 1))


def named(name: str) -> Node:
    if name in ("pi", "e", "i"):
        return ("const", name)
    return ("const", "inf") if name in ("infty", "infinity", "inf", "oo") else ("sym", name)


def mentions(node, part: Node) -> bool:
    return node == part or isinstance(node, tuple) and any(mentions(inner, part) for inner in node)


def with_index(node):
    """The imaginary unit becomes the name i, over which a sum runs."""
    if node == ("const", "i"):
        return ("sym", "i")
    return tuple(with_index(part) for part in node) if isinstance(node, tuple) else node


def literal(node: Node) -> bool:
    """Whether an expression is made of numbers and of pi only."""
    kind = node[0]
    if kind in ("num", "const"):
        return kind == "num" or node[1] == "pi"
    if kind in ("neg", "pm", "deg", "pct"):
        return literal(node[1])
    if kind in ("add", "mul"):
        return all(literal(part) for part in node[1])
    if kind in ("div", "pow"):
        return literal(node[1]) and literal(node[2])
    return kind == "call" and all(literal(part) for part in node[2])


def raised(node: Node, exponent: Node) -> Node:
    """A power; T over a capital letter, a matrix or a tuple is the transpose, * and a dagger make another name."""
    if node[0] == "sym" and exponent in (("sym", "*"), ("sym", "dagger")):
        return ("sym", f"{node[1]}^{exponent[1]}")
    if exponent == ("sym", "T"):
        if node[0] == "sym" and len(node[1]) == 1 and node[1].isupper():
            return ("sym", node[1] + "^T")
        if node[0] == "mat":
            return ("mat", tuple(zip(*node[1], strict=True)))
        if node[0] == "tuple":
            return node
    return ("pow", node, exponent)


def based(node: Node, subscript: str) -> Node:
    """A whole number with its base."""
    if node[0] != "num" or node[1].denominator != 1:
        raise Unreadable("a subscript after something else than a name")
    return based_digits("", str(node[1]), "", base_of(subscript))


def base_of(text: str) -> int:
    base = BASES.get(text.lower()) or (int(text) if re.fullmatch(r"\d{1,2}", text, re.ASCII) else 0)
    if not 2 <= base <= 36:
        raise Unreadable("a base")
    return base


def based_digits(sign: str, whole: str, fraction: str, base: int) -> Node:
    """The node of a number from its digits; raises a ValueError for a digit that the base lacks."""
    value = Fraction(int(whole + fraction, base), base ** len(fraction))
    return (
        "base",
        -value if sign else value,
        base,
        sign + whole.upper() + (f".{fraction.upper()}" if fraction else ""),
    )


# ---------------------------------------------------------------- the parser


class Expressions:
    """The part of the parser that reads expressions.

    Every method reads from the current token on and returns a node. `answer` and `tail`, which read what stands within
    brackets, are those of reader.py.
    """

    def __init__(self, tokens: list[Token], loose: bool):
        self.tokens, self.i, self.loose = list(tokens), 0, loose
        self.bars = 0  # vertical bars that are open: the next one closes
        self.matrices = 0  # that are open: & separates cells
        self.in_set = False  # \{x | ...\} and \{x : ...\}: the sign separates

    def answer(self) -> Node:
        raise NotImplementedError

    def tail(self, node: Node) -> Node:
        raise NotImplementedError

    def unit(self) -> tuple | None:
        raise NotImplementedError

    # ------------------------------------------------ tokens

    def kind(self, ahead: int = 0) -> str:
        return self.tokens[self.i + ahead].kind if self.i + ahead < len(self.tokens) else ""

    def value(self, ahead: int = 0):
        return self.tokens[self.i + ahead].value if self.i + ahead < len(self.tokens) else ""

    def at_command(self, *names: str, ahead: int = 0) -> bool:
        return self.kind(ahead) == "cmd" and self.value(ahead) in names

    def word(self, ahead: int = 0) -> str:
        return self.value(ahead).lower() if self.kind(ahead) == "word" else ""

    def accept(self, kind: str) -> bool:
        found = self.kind() == kind
        self.i += found
        return found

    def expect(self, kind: str) -> None:
        if not self.accept(kind):
            raise Unreadable(f"{kind} is missing")

    def split(self, *pieces: Token) -> None:
        """Puts several tokens in the place of the current one."""
        self.tokens[self.i : self.i + 1] = pieces

    # ------------------------------------------------ sums and products

    def sum(self) -> Node:
        terms: list[Node] = []
        while True:
            negative, plus_minus, start = False, "", self.i
            while self.kind() in ("+", "-") or self.at_command("pm", "mp"):
                if self.kind() == "cmd":
                    if plus_minus:
                        raise Unreadable("two plus-minus signs in a row")
                    plus_minus = self.value()
                negative ^= self.kind() == "-"
                self.i += 1
            if terms and self.i == start:
                break
            if terms == [("sym", "set R")] and self.kind() == "\\{":  # the reals without a set
                self.i = start
                break
            if terms and not self.starts_value():
                raise Unreadable("a sign at the end")
            term = self.product()
            term = ("neg", term) if negative else term
            terms.append((plus_minus, term) if plus_minus else term)
        return terms[0] if len(terms) == 1 else ("add", tuple(terms))

    def starts_value(self) -> bool:
        kind = self.kind()
        if kind == "run":
            return self.value() not in CONNECTIVES
        return kind in ("num", "sym", "|", "$") or kind in OPENING or kind == "cmd" and self.value() not in NOT_VALUES

    def juxtaposed(self) -> bool:
        """Whether the next token continues a product without a sign."""
        kind, before = self.kind(), self.tokens[self.i - 1]
        if kind == "|":
            return not self.bars and not self.in_set
        if kind == "[":
            return self.closes_as_factor()
        if kind in ("\\{", "langle") or self.at_command("ldots"):
            return False
        if self.at_command("frac"):
            return not (self.kind(1) == "{" and self.kind(2) == "word" and unit_of(self.value(2)))
        if kind == "(":
            return not (self.kind(1) == "word" and len(self.value(1)) > 1 or self.holds("in", *RELATION_SIGNS))
        if kind == "run" and self.value() == "U":  # a union in plain text
            return self.kind(1) not in ("(", "[")
        if kind == "num":
            if before.kind == "run":
                return self.tokens[self.i].spaced or self.kind(1) == "^" and len(before.value) == 1
            return before.kind not in ("num", "sym")
        return self.starts_value()

    def closes_as_factor(self) -> bool:
        """Whether a square bracket closes as one and holds no comma: a factor, not an interval."""
        depth = 0
        for token in self.tokens[self.i :]:
            depth += (token.kind in OPENING) - (token.kind in CLOSING)
            if depth == 0:
                return token.kind == "]"
            if depth == 1 and token.kind == ",":
                return False
        return False

    def product(self) -> Node:
        factors: list[Node] = []
        while True:
            if factors and self.loose and self.unit_follows(product_of(factors)):
                break
            if not factors:
                start = self.i
                factors.append(self.mixed(self.power(), start))
            elif self.juxtaposed():
                factors.append(self.power())
            elif self.accept("*"):
                factors.append(self.signed_power())
            elif self.accept("/"):
                factors = [("div", product_of(factors), self.signed_power(whole_run=True))]
            else:
                break
        if len(factors) > 1 and all(factor[0] == "tuple" for factor in factors):  # (1,2)(3,4) without commas
            return list_of(factors)
        return product_of(factors)

    def signed_power(self, whole_run: bool = False) -> Node:
        negative = False
        while self.kind() in ("+", "-"):
            negative ^= self.kind() == "-"
            self.i += 1
        node = self.power(whole_run)
        return ("neg", node) if negative else node

    def unit_follows(self, node: Node) -> bool:
        """For the loose reading: whether letters after a number and a space are a unit up to the item's end."""
        start, kind, value = self.i, self.kind(), self.value()
        letters = kind == "run" and (unit_of(value) or self.at_command("Omega", ahead=1)) and value not in ("e", "i")
        if not (letters or self.at_command("Omega", "mu")) or not self.tokens[start].spaced or not literal(node):
            return False
        try:
            unit = self.unit()
            return unit is not None and (self.kind() in ("", ".", "word") or self.kind() in SEPARATORS | CLOSING)
        except Unreadable:
            return False
        finally:
            self.i = start

    def mixed(self, whole: Node, start: int) -> Node:
        r"""Joins 1\frac{4}{5} or 137 1/2, whose whole part was read from the token at `start`, into one number."""
        if whole[0] != "num" or self.i != start + 1 or "." in self.tokens[start].value[1]:
            return whole
        save, top, bottom = self.i, None, None
        if self.at_command("frac") and self.juxtaposed():
            fraction = self.primary()
            top, bottom = fraction[1:] if fraction[0] == "div" else (None, None)
        elif self.kind() == "num" and self.kind(1) == "/" and self.kind(2) == "num" and self.tokens[self.i].spaced:
            top, bottom = ("num", self.value()[0]), ("num", self.value(2)[0])
            self.i += 3
        if top and bottom and top[0] == bottom[0] == "num" and top[1].denominator == bottom[1].denominator == 1:
            if self.kind() != "^" and not 0 < top[1] < bottom[1]:
                raise Unreadable("a mixed number with an improper fraction")
            if self.kind() != "^":
                return self.postfix(("num", whole[1] + top[1] / bottom[1]))
        self.i = save
        return whole

    # ------------------------------------------------ powers and what else stands behind a value

    def power(self, whole_run: bool = False) -> Node:
        return self.postfix(self.primary(whole_run))

    def postfix(self, node: Node) -> Node:
        while True:
            kind = self.kind()
            if kind == "degree":
                self.i += 1
                node = ("deg", node)
            elif kind == "^":
                self.i += 1
                primes = self.kind() in ("'", "''") or self.kind() == "{" and self.kind(1) in ("'", "''")
                node = self.primes(node) if primes else raised(node, self.script())
                if (
                    self.kind() == "("
                    and node[0] == "pow"
                    and node[1][1] in FUNCTION_LETTERS
                    and node[2] == ("neg", ONE)
                ):
                    node = self.with_arguments(("sym", node[1][1] + "^-1"))  # an inverse function
            elif kind in ("'", "''"):
                node = self.primes(node)
            elif kind == "!":
                self.i += 1
                node = ("call", "factorial2" if self.accept("!") else "factorial", (node,))
            elif kind == "%":
                self.i += 1
                node = ("pct", node)
            elif kind == "_":
                self.i += 1
                node = based(node, self.subscript())
            else:
                return node

    def primes(self, node: Node) -> Node:
        count, braced = 0, self.accept("{")
        while self.kind() in ("'", "''"):
            count += len(self.kind())
            self.i += 1
        if braced:
            self.expect("}")
        if node[0] == "pow" and node[1][0] == "sym":  # y^2'
            return ("pow", ("sym", node[1][1] + "'" * count), node[2])
        if node[0] != "sym":
            raise Unreadable("a prime after something else than a name")
        return self.with_arguments(("sym", node[1] + "'" * count))

    def script(self) -> Node:
        """An exponent: a group, a number, a sign and a number, or one letter."""
        if self.accept("{"):
            node = self.sum()
            self.expect("}")
            return node
        if self.kind() in ("-", "+"):
            negative = self.kind() == "-"
            self.i += 1
            return ("neg", self.script()) if negative else self.script()
        if self.accept("*"):
            return ("sym", "*")
        if self.kind() == "run":
            return self.letter()
        if self.kind() == "word" and len(self.value()) == 1:
            self.i += 1
            return ("sym", self.value(-1))
        return self.primary()

    def letter(self) -> Node:
        """The first letter of a run, or a name such as pi as a whole; the rest is left."""
        value = self.value()
        if value not in PLAIN_NAMES and len(value) > 1:
            self.split(Token("run", value[0], self.tokens[self.i].spaced), Token("run", value[1:]))
        self.i += 1
        return named(self.value(-1))

    def subscript(self) -> str:
        """The text of a subscript, without spaces, braces and round brackets."""

        def spell(token: Token) -> str:
            return token.value[1] if token.kind == "num" else token.value or token.kind

        if self.kind() == "{":
            depth = 0
            parts: list[str] = []
            while self.i < len(self.tokens):
                token = self.tokens[self.i]
                depth += (token.kind == "{") - (token.kind == "}")
                self.i += 1
                if depth == 0:
                    return re.sub(r"^\((.*)\)$", r"\1", "".join(parts))
                if token.kind not in ("{", "}"):
                    parts.append(spell(token))
            raise Unreadable("a brace is not closed")
        if self.kind() == "run":
            self.letter()
            return self.value(-1)
        if self.kind() in ("num", "word", "sym", "cmd"):
            self.i += 1
            return spell(self.tokens[self.i - 1])
        raise Unreadable("a subscript is missing")

    # ------------------------------------------------ values

    def primary(self, whole_run: bool = False) -> Node:
        kind, value = self.kind(), self.value()
        if kind == "num":
            self.i += 1
            return ("num", value[0])
        if kind == "run":
            return self.run(whole_run)
        if kind == "sym":
            self.i += 1
            return self.with_arguments(self.indexed(("sym", value)))
        if kind == "$":
            self.i += 1
            return ("qty", self.product(), *UNITS["dollar"])
        if kind == "word":
            self.i += 1
            if self.kind() == "num" and value in ("EUR", "GBP", "yen", "rupee", "USD"):
                return ("qty", self.product(), *UNITS[value])
            if len(value) > 1:
                raise Unreadable(f"the word {value}")
            return self.indexed(("sym", value))
        if kind == "cmd":
            return self.command(value)
        if kind == "{":
            return self.braced()
        if kind in ("(", "[", "langle"):
            return self.bracketed()
        if kind == "\\{":
            return self.set()
        if kind in ("|", "open|"):
            return self.absolute()
        if kind in ("lfloor", "lceil"):
            self.i += 1
            node = self.sum()
            self.expect("r" + kind[1:])
            return ("call", kind[1:], (node,))
        if kind == "begin":
            return self.matrix()
        raise Unreadable(f"{kind or 'the end'} where a value should stand")

    def run(self, whole_run: bool) -> Node:
        """Letters in italics: a function, a name, or a variable, of which the rest is left (1/RC takes them all)."""
        value, spaced = self.value(), self.tokens[self.i].spaced
        if re.fullmatch("d[A-Za-z]", value) and self.kind(1) == "/" and re.fullmatch("d[A-Za-z]", str(self.value(2))):
            self.i += 3  # dy/dx
            return ("sym", f"{value[1]}'|{self.value(-1)[1]}")
        if value in PLAIN_FUNCTIONS:
            self.i += 1
            return self.function(value)
        if value in PLAIN_NAMES:
            self.i += 1
            return self.indexed(named(value))
        glued = re.fullmatch(
            rf"([A-Za-z]?)({'|'.join(sorted(PLAIN_FUNCTIONS, key=len, reverse=True))}|pi)([A-Za-z]?)", value
        )
        if glued:  # sinx, xsinx, kpi
            self.split(*(Token("run", piece, spaced) for piece in glued.groups() if piece))
            return self.run(whole_run)
        if len(value) > 12:
            raise Unreadable(f"the word {value}")
        if len(value) == 1:
            self.i += 1
            return self.with_arguments(self.indexed(named(value)))
        if whole_run:
            self.split(Token("run", value[-1]))
            return product_of([*map(named, value[:-1]), self.power()])
        return self.letter()

    def indexed(self, node: Node) -> Node:
        """A name with its subscript."""
        if node[0] in ("sym", "const") and self.accept("_"):
            return ("sym", f"{node[1]}_{self.subscript()}")
        return node

    def with_arguments(self, node: Node) -> Node:
        """A name with its arguments: f(x+1), x(t), S(101), I(0), C(n, 2); x(x+1) remains a product."""
        if node in (("sym", "E"), ("sym", "set E")) and self.kind() == "[":  # E[X]
            return ("app", "E", (self.bracketed(),))
        if node[0] != "sym" or self.kind() != "(":
            return node
        name = node[1].split("_")[0].removesuffix("^-1")
        if self.tokens[self.i].spaced and not (name.rstrip("'") in FUNCTION_LETTERS or name in ("u", "T")):
            return node
        one = self.kind(2) == ")" and (
            self.kind(1) in ("num", "sym")
            or self.kind(1) == "run"
            and (len(self.value(1)) == 1 or self.value(1).isupper() or self.value(1) in PLAIN_NAMES)
            or self.at_command(*GREEK_NAMES, "infty", ahead=1)
        )
        if not (one or name == "Gamma" or name.rstrip("'") in FUNCTION_LETTERS or "'" in name or self.holds(",")):
            return node
        arguments = self.bracketed()
        if arguments[0] == "tuple" and arguments[1:3] != ("(", ")"):
            raise Unreadable("an interval after a name")
        arguments = arguments[3] if arguments[0] == "tuple" else (arguments,)
        if node[1] == "C" and len(arguments) == 2:
            return ("call", "binom", arguments)
        if node[1] in ("Gamma", "zeta") and len(arguments) == 1:
            return ("call", node[1].lower(), arguments)
        return ("app", node[1], arguments)

    def holds(self, *kinds: str) -> bool:
        """Whether the brackets that come next hold a token of these kinds, outside inner brackets."""
        depth = 0
        for token in self.tokens[self.i :]:
            depth += (token.kind in OPENING) - (token.kind in CLOSING)
            if depth == 0 or depth == 1 and token.kind in kinds:
                return depth == 1
        return False

    # ------------------------------------------------ brackets

    def braced(self) -> Node:
        self.expect("{")
        if self.accept("}"):
            return self.power()
        bars, self.bars = self.bars, 0
        node = self.answer()
        if self.at_command("over", "choose"):
            over = self.value() == "over"
            self.i += 1
            node = ("div", node, self.sum()) if over else ("call", "binom", (node, self.sum()))
        self.bars = bars
        self.expect("}")
        return node

    def bracketed(self) -> Node:
        """Brackets: a grouped expression, a tuple, an interval, or a vector in angle brackets."""
        opening = self.kind()
        self.i += 1
        bars, in_set, self.bars, self.in_set = self.bars, self.in_set, 0, False
        inner = self.answer()
        self.bars, self.in_set = bars, in_set
        closing = self.kind()
        if opening == "langle":
            self.expect("rangle")
            return ("tuple", "(", ")", inner[1] if inner[0] == "list" else (inner,))
        if closing not in (")", "]"):
            raise Unreadable("a bracket is not closed")
        self.i += 1
        if inner[0] == "list" and set(inner[2]) <= {",", ";"}:
            return ("tuple", opening, closing, inner[1])
        if (opening, closing) not in (("(", ")"), ("[", "]")):
            raise Unreadable("brackets that do not match")
        return ("group", inner)

    def set(self) -> Node:
        r"""\{1, 2\}, \{x | x > 3\}, \{x \in \mathbb{R} : x > 3\}."""
        self.expect("\\{")
        if self.accept("\\}"):
            return ("set", ())
        bars, in_set, self.bars, self.in_set = self.bars, self.in_set, 0, True
        inner = self.answer()
        self.bars, self.in_set = bars, in_set
        if self.kind() in ("|", ":") or self.at_command("mid"):
            self.i += 1
            inner = ("builder", inner, self.answer())
            self.expect("\\}")
            return inner
        self.expect("\\}")
        return ("set", inner[1] if inner[0] == "list" else (inner,))

    def absolute(self) -> Node:
        closing = ("close|", "|") if self.kind() == "open|" else ("|", "close|")
        self.i += 1
        norm = self.accept("|")
        self.bars += 1
        node = self.sum()
        self.bars -= 1
        for _ in range(1 + norm):
            if not any(self.accept(sign) for sign in closing):
                raise Unreadable("a vertical bar is not closed")
        return ("call", "norm" if norm else "abs", (node,))

    def matrix(self) -> Node:
        kind = self.value()
        self.i += 1
        self.matrices += 1
        rows: list[list[Node]] = [[]]
        while not self.accept("end"):
            if self.accept("\\"):
                rows.append([])
            elif self.at_command("hline"):
                self.i += 1
            elif not self.accept("&"):
                rows[-1].append(self.tail(self.sum()))
                if self.kind() not in ("&", "\\", "end"):
                    raise Unreadable("a cell of a matrix")
        self.matrices -= 1
        node = ("mat", tuple(tuple(row) for row in rows if row))
        if not node[1] or len({len(row) for row in node[1]}) != 1 or kind == "cases":
            raise Unreadable("rows of different lengths")
        return ("call", "det", (node,)) if kind == "vmatrix" else node

    # ------------------------------------------------ commands and functions

    def argument(self) -> Node:
        r"""An argument of \frac and its like: a group, one digit, one letter or one command."""
        if self.accept("{"):
            bars, self.bars = self.bars, 0
            node = self.tail(self.sum())
            self.bars = bars
            self.expect("}")
            return node
        if self.kind() == "run":
            return self.letter()
        if self.kind() == "num" and re.match(r"\d\d", self.value()[1]):
            first, rest = self.value()[1][0], self.value()[1][1:]
            self.split(*(Token("num", (Fraction(digits), digits)) for digits in (first, rest)))
        return self.primary()

    def command(self, name: str) -> Node:
        self.i += 1
        if name == "frac":
            return self.derivative() or ("div", self.argument(), self.argument())
        if name == "sqrt":
            return self.root()
        if name == "binom":
            return ("call", "binom", (self.argument(), self.argument()))
        if name in ("sum", "prod"):
            return self.series(name)
        if (name in FUNCTIONS or name in FUNCTION_SYNONYMS) and not (name in ("max", "min") and self.kind() == "_"):
            return self.function(name)
        if name == "infty":
            return ("const", "inf")
        if name == "ldots":
            return ("sym", "...")
        if name == "emptyset":
            return ("set", ())
        if name in ("int", "lim", "oint") or name in ("max", "min", "sup") and self.kind() == "_":
            return self.unread(name)
        if name in ("angle", "triangle"):
            letters = ""
            while self.kind() in ("run", "word") or not letters and self.kind() == "num":
                letters += self.value()[1] if self.kind() == "num" else self.value()
                self.i += 1
            return ("sym", f"{name} {letters}")
        if name in GREEK_NAMES or name in ("hbar", "ell", "nabla", "partial"):
            return self.with_arguments(self.indexed(named(name)))
        if name in ("top", "intercal"):
            return ("sym", "T")
        if name in ("dagger", "odot", "oplus", "parallel", "perp"):
            return ("sym", name)
        raise Unreadable(f"the command {name}")

    def unread(self, name: str) -> Node:
        """An integral, a limit and the like, up to the next relation or separator: a name by its spelling."""
        depth = 0
        while self.i < len(self.tokens):
            kind, value, _ = self.tokens[self.i]
            depth += (kind in OPENING) - (kind in CLOSING)
            if depth < 0 or depth == 0 and (kind in SEPARATORS or kind in RELATION_SIGNS or kind in ("approx", "word")):
                break
            name += str(value[1] if kind == "num" else value or kind)
            self.i += 1
        return ("sym", name)

    def derivative(self) -> Node | None:
        r"""\frac{dx}{dt} and \frac{d^2 x}{dt^2}, as a name such as x''|t; None if it is another fraction."""
        end, parts = self.i, []
        for _ in range(2):
            if end >= len(self.tokens) or self.tokens[end].kind != "{":
                return None
            depth, text = 0, ""
            for i in range(end, len(self.tokens)):
                token = self.tokens[i]
                depth += (token.kind == "{") - (token.kind == "}")
                if depth == 0:
                    break
                spelled = token.value[1] if token.kind == "num" else token.value or token.kind
                text += f"\\{spelled} " if token.kind == "cmd" else spelled.strip("{}")
            parts.append(text)
            end = i + 1
        d = r"(?:d|\\partial )(?:\^(\d))?"
        top = re.fullmatch(rf"{d}(\\?[A-Za-z]+ ?(?:_\w+)?)", parts[0])
        bottom = re.fullmatch(r"(?:d|\\partial )(\\?[A-Za-z]+ ?)(?:\^(\d))?", parts[1])
        if not top or not bottom or top[1] != bottom[2]:
            return None
        self.i = end
        name, variable = (re.sub(r"[\\ ]", "", text) for text in (top[2], bottom[1]))
        return ("sym", f"{name}{chr(39) * int(top[1] or 1)}|{variable}")

    def root(self) -> Node:
        degree = TWO
        if self.accept("["):
            degree = self.sum()
            self.expect("]")
        if self.kind() == "num":  # not its first digit alone: the root of 13, without braces, is meant
            self.i += 1
            return ("call", "root", (("num", self.value(-1)[0]), degree))
        return ("call", "root", (self.argument(), degree))

    def series(self, name: str) -> Node:
        low = high = None
        for _ in range(2):
            if self.accept("_"):
                self.expect("{")
                low = self.answer()
                self.expect("}")
            elif self.accept("^"):
                high = self.script()
        if low is None or high is None or low[0] != "rel" or low[2] != ("=",) or with_index(low[1][0])[0] != "sym":
            raise Unreadable("a sum without bounds")
        variable, body = with_index(low[1][0])[1], self.product()
        return (name, variable, low[1][1], high, with_index(body) if variable == "i" else body)

    def function(self, name: str) -> Node:
        """A function with its arguments: \\sin 2x, \\sin^2 x, \\log_2(8), \\max(3, 5)."""
        name = FUNCTION_SYNONYMS.get(name, name)
        if name in ("sqrt", "cbrt"):
            return self.root() if name == "sqrt" else ("call", "root", (self.argument(), THREE))
        exponent = base = None
        while self.kind() in ("^", "_"):
            self.i += 1
            if self.kind(-1) == "^":
                exponent = self.script()
            else:
                base = self.script()
        if self.kind() == "(":
            inner = self.bracketed()
            arguments = inner[3] if inner[:3] == ("tuple", "(", ")") else (inner,)
        else:
            arguments = (self.argument() if self.kind() == "{" else self.bare_argument(),)
        if base is not None:
            if name != "log":
                raise Unreadable("a subscript of a function")
            name, arguments = "logb", (*arguments, base)
        if exponent == ("neg", ONE) and name in INVERTIBLE:
            return ("call", "arc" + name, arguments)
        node = ("call", name, arguments)
        return node if exponent is None else ("pow", node, exponent)

    def bare_argument(self) -> Node:
        r"""The argument of a function without brackets: \sin 2x, \ln x^2, \cos \omega t, \sin \pi/6."""
        negative = False
        if self.kind() in ("-", "+"):
            negative = self.kind() == "-"
            self.i += 1
        factors: list[Node] = []
        while not factors or self.juxtaposed():
            name = self.value() if self.kind() in ("cmd", "run") else ""
            if factors and (
                self.kind() in ("(", "[", "{") or name in FUNCTIONS | PLAIN_FUNCTIONS or name in ("sum", "sqrt")
            ):
                break
            start = self.i
            factors.append(self.mixed(self.power(), start) if not factors else self.power())
            if self.kind() == "/" and self.kind(1) == "num" and mentions(product_of(factors), ("const", "pi")):
                self.i += 1
                factors = [("div", product_of(factors), self.power())]
        node = product_of(factors)
        return ("neg", node) if negative else node


def unit_vector_names(length: int) -> list[str]:
    return [letter + CIRCUMFLEX for letter in "ijk"[:length]]
