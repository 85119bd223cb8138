"""Values of expressions: exact where they are rational, else to as many digits as a comparison needs.

Two constants are equal if they agree to 1,000 digits. Two expressions with unknowns are equal if they agree to 60 digits at
several points: what is analytic and agrees at random points is the same function. The unknowns are positive there, as
lengths, masses and times are, so that sqrt(1/n) is 1/sqrt(n); where absolute values or roundings make the sign matter,
negative points count too, and where an unknown can only be a whole number (an upper bound, an exponent of -1), it is one.
"""

import hashlib
import math
from fractions import Fraction
from itertools import chain

import mpmath
from mpmath import mp

MAX_BITS = 100_000  # of an exact number
MAX_EXPONENT = 10**9  # of two, for a number that is not exact
MAX_STEPS = 20_000  # nodes visited in one evaluation


class NoValue(ArithmeticError):
    """The expression has no finite value here, or none that can be found quickly."""


FUNCTIONS = {
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tan": mpmath.tan,
    "cot": mpmath.cot,
    "sec": mpmath.sec,
    "csc": mpmath.csc,
    "arcsin": mpmath.asin,
    "arccos": mpmath.acos,
    "arctan": mpmath.atan,
    "arccot": mpmath.acot,
    "arcsec": mpmath.asec,
    "arccsc": mpmath.acsc,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "tanh": mpmath.tanh,
    "coth": mpmath.coth,
    "sech": mpmath.sech,
    "csch": mpmath.csch,
    "arcsinh": mpmath.asinh,
    "arccosh": mpmath.acosh,
    "arctanh": mpmath.atanh,
    "exp": mpmath.exp,
    "Re": mpmath.re,
    "Im": mpmath.im,
}
ROUNDING = {"floor", "ceil", "abs", "sign", "max", "min", "norm"}


def parts_of(node):
    """The node and all nodes within it."""
    if isinstance(node, tuple):
        if node and isinstance(node[0], str):
            yield node
        yield from chain.from_iterable(parts_of(part) for part in node)


def unknowns(node: tuple) -> set[str]:
    names = {part[1] for part in parts_of(node) if part[0] == "sym"}
    return names - {part[1] for part in parts_of(node) if part[0] in ("sum", "prod")}


class Evaluator:
    """Evaluates a tree at one point.

    Args:
        point: values of the unknowns.
        log_base: what \\log without a base means, 10 or None for e.

    After an evaluation, `left_reals` says whether a root or logarithm of a negative number was taken on the way.
    """

    def __init__(self, point: dict, log_base: int | None = None):
        self.point, self.log_base = point, log_base
        self.left_reals, self.steps = False, 0

    def number(self, x):
        return mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x

    def __call__(self, node: tuple):
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise NoValue("too many steps")
        kind = node[0]
        if kind == "num":
            return node[1]
        if kind == "sym":
            return self.point[node[1]]
        if kind == "const":
            if node[1] == "inf":
                return mp.inf
            return {"pi": mp.pi, "e": mp.e}[node[1]] * 1 if node[1] != "i" else mp.mpc(0, 1)
        if kind == "group":
            return self(node[1])
        if kind == "add":
            total = Fraction(0)
            for term in node[1]:
                total = self.add(total, self(term))
            return total
        if kind == "neg":
            return -self(node[1])
        if kind == "mul":
            product = Fraction(1)
            for factor in node[1]:
                product = self.multiply(product, self(factor))
            return product
        if kind == "div":
            top, bottom = self(node[1]), self(node[2])
            if bottom == 0:
                raise NoValue("division by zero")
            if isinstance(top, Fraction) and isinstance(bottom, Fraction):
                return top / bottom
            return self.number(top) / self.number(bottom)
        if kind == "pow":
            return self.power(self(node[1]), self(node[2]))
        if kind == "deg":
            return self.number(self(node[1])) * mp.pi / 180
        if kind == "pct":
            return self.multiply(self(node[1]), Fraction(1, 100))
        if kind == "base":
            return node[1]
        if kind == "call":
            return self.call(node[1], node[2])
        if kind == "app":
            return self.unknown_function(node[1], [self(argument) for argument in node[2]])
        if kind in ("sum", "prod"):
            return self.series(node)
        raise NoValue(f"a {kind} has no value")

    def add(self, a, b):
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return a + b
        return self.number(a) + self.number(b)

    def multiply(self, a, b):
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            if a.numerator.bit_length() + b.numerator.bit_length() < MAX_BITS:
                return a * b
        return self.number(a) * self.number(b)

    def power(self, base, exponent):
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            if exponent.denominator == 1:
                n = exponent.numerator
                if n < 0 and base == 0:
                    raise NoValue("a power of zero")
                if abs(n) * max(base.numerator.bit_length(), base.denominator.bit_length()) < MAX_BITS:
                    return base**n
        x, y = self.number(base), self.number(exponent)
        if x == 0:
            if mp.re(y) <= 0:
                raise NoValue("a power of zero")
            return Fraction(0)
        if abs(y) * max(1, abs(mp.log(abs(x), 2))) > MAX_EXPONENT:
            raise NoValue("a huge power")
        if isinstance(x, mp.mpf) and x < 0 and not (isinstance(exponent, Fraction) and exponent.denominator == 1):
            if isinstance(exponent, Fraction) and exponent.denominator % 2:  # the real cube root of -8
                root = mp.power(-x, y)
                return -root if exponent.numerator % 2 else root
            self.left_reals = True
        return mp.power(x, y)

    def call(self, name: str, arguments: tuple):
        if name == "det":
            return self.determinant(arguments[0])
        values = [self(argument) for argument in arguments]
        if len(values) != {"root": 2, "binom": 2, "logb": 2}.get(name, 1) and name not in ("max", "min", "gcd", "lcm"):
            raise NoValue(f"{name} of {len(values)} arguments")
        x = values[0]
        if name == "root":
            return self.root(x, values[1])
        if name == "rad":
            return x
        if name in ("factorial", "factorial2"):
            return self.factorial(x, double=name == "factorial2")
        if name == "binom":
            return self.binomial(*values)
        if name == "abs" or name == "norm":
            return abs(x)
        if name in ("floor", "ceil"):
            if isinstance(x, Fraction):
                return Fraction(math.floor(x) if name == "floor" else math.ceil(x))
            return (mp.floor if name == "floor" else mp.ceil)(x)
        if name == "sign":
            return Fraction((self.number(x) > 0) - (self.number(x) < 0))
        if name in ("max", "min"):
            return (max if name == "max" else min)(values, key=self.number)
        if name in ("gcd", "lcm"):
            if not all(isinstance(v, Fraction) and v.denominator == 1 for v in values):
                raise NoValue(f"{name} of fractions")
            return Fraction((math.gcd if name == "gcd" else math.lcm)(*(v.numerator for v in values)))
        if name in ("ln", "lg", "log", "logb"):
            y = self.number(x)
            if y == 0:
                raise NoValue("the logarithm of zero")
            self.left_reals |= isinstance(y, mp.mpf) and y < 0
            base = {"ln": None, "lg": 10, "log": self.log_base, "logb": None}[name]
            base = self.number(values[1]) if name == "logb" else base
            if base is not None and (base == 0 or base == 1):
                raise NoValue("a logarithm to the base 1")
            return mp.log(y) if base is None else mp.log(y) / mp.log(base)
        y = self.number(x)
        if abs(y) > MAX_EXPONENT:
            raise NoValue("a huge argument")
        if (
            name in ("arcsin", "arccos", "arctanh")
            and isinstance(y, mp.mpf)
            and abs(y) > 1
            or name == "arccosh"
            and mp.re(y) < 1
        ):
            self.left_reals = True
        if name not in FUNCTIONS:
            raise NoValue(f"the function {name}")
        return FUNCTIONS[name](y)

    def root(self, x, degree):
        if not isinstance(degree, Fraction) or degree.denominator != 1 or degree == 0:
            return self.power(x, self.number(1 / degree) if isinstance(degree, Fraction) else 1 / degree)
        n = degree.numerator
        y = self.number(x)
        if y == 0:
            return Fraction(0)
        if isinstance(y, mp.mpf) and y < 0 and n % 2:
            return -mp.root(-y, n)
        self.left_reals |= isinstance(y, mp.mpf) and y < 0
        return mp.sqrt(y) if n == 2 else mp.power(y, mp.mpf(1) / n)

    def factorial(self, x, double: bool):
        if isinstance(x, Fraction) and x.denominator == 1:
            n = x.numerator
            if n < 0:
                raise NoValue("the factorial of a negative number")
            if n <= 3000:
                return Fraction(math.prod(range(n, 1, -2)) if double else math.factorial(n))
        if abs(self.number(x)) > 10**7:
            raise NoValue("a huge factorial")
        return mp.fac2(self.number(x)) if double else mp.factorial(self.number(x))

    def binomial(self, n, k):
        if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1:
            if n >= 0 and (0 <= min(k, n - k) <= 2000 and n < 10**7 or min(k, n - k) < 0):
                return Fraction(math.comb(n.numerator, k.numerator)) if k >= 0 else Fraction(0)
        if abs(self.number(n)) > 10**7 or abs(self.number(k)) > 10**7:
            raise NoValue("a huge binomial coefficient")
        return mp.binomial(self.number(n), self.number(k))

    def determinant(self, matrix: tuple):
        rows = [[self(cell) for cell in row] for row in matrix[1]]
        if len(rows) != len(rows[0]) or len(rows) > 5:
            raise NoValue("a determinant")

        def expand(rows):
            if len(rows) == 1:
                return rows[0][0]
            total = Fraction(0)
            for j, cell in enumerate(rows[0]):
                minor = expand([row[:j] + row[j + 1 :] for row in rows[1:]])
                term = self.multiply(cell, minor)
                total = self.add(total, -term if j % 2 else term)
            return total

        return expand(rows)

    def unknown_function(self, name: str, arguments: list):
        """A value that depends on the name and the arguments alone, for f(x) with f unknown."""
        key = name + ";".join(mp.nstr(self.number(a), 40) for a in arguments)
        return unknown_value(key, 0.5, 3.0)

    def series(self, node: tuple):
        _, name, low, high, body = node
        low, high = self(low), self(high)
        if not all(isinstance(v, Fraction) and v.denominator == 1 for v in (low, high)) or high - low > 2000:
            raise NoValue("bounds of a sum")
        outer, total = self.point.get(name), Fraction(0 if node[0] == "sum" else 1)
        for k in range(int(low), int(high) + 1):
            self.point = self.point | {name: Fraction(k)}
            term = self(body)
            total = self.add(total, term) if node[0] == "sum" else self.multiply(total, term)
        self.point = {k: v for k, v in self.point.items() if k != name} | ({name: outer} if outer is not None else {})
        return total


def unknown_value(key: str, low: float, high: float):
    """A number between low and high that depends on the key alone."""
    digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[:24], "big")
    return mp.mpf(low) + (mp.mpf(high) - mp.mpf(low)) * digest / 2**192


def finite(x) -> bool:
    return isinstance(x, Fraction) or bool(mp.isfinite(x))


def constant(node: tuple, digits: int = 40, log_base: int | None = None):
    """The value of an expression without unknowns: a Fraction if that is exact, else mpf or mpc; may be infinite."""
    with mp.workdps(digits):
        value = Evaluator({}, log_base)(node)
        if isinstance(value, mp.mpc) and value.imag == 0:
            value = value.real
        if mp.isnan(value) if not isinstance(value, Fraction) else False:
            raise NoValue("not a number")
        return value


def near(a, b, digits: int) -> bool:
    """Whether two values agree to so many digits."""
    a, b = (mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x for x in (a, b))
    size = max(abs(a), abs(b))
    return size == 0 or abs(a - b) <= size * mp.mpf(10) ** -digits or size < mp.mpf(10) ** -(digits + digits // 4)


def within(a, gold, tolerance: float) -> bool:
    """Whether a value is equal to the gold value, or closer to it than the relative tolerance."""
    if isinstance(a, Fraction) and isinstance(gold, Fraction):
        return a == gold or abs(a - gold) < Fraction(str(tolerance)) * abs(gold)
    a, gold = (mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x for x in (a, gold))
    return bool(abs(a - gold) < tolerance * abs(gold))


def same_constant(a: tuple, gold: tuple, tolerance: float, log_base: int | None = None) -> bool:
    """Whether two expressions without unknowns have the same value: exactly, or within the relative tolerance."""
    x, y = constant(a, 60, log_base), constant(gold, 60, log_base)
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return within(x, y, tolerance)
    if not finite(x) or not finite(y):
        return bool(x == y)
    with mp.workdps(60):
        if tolerance and within(x, y, tolerance):
            return True
        if not near(x, y, 25):
            return False
    u, v = constant(a, 1100, log_base), constant(gold, 1100, log_base)
    with mp.workdps(1100):
        if abs(Evaluator({}).number(u)) < mp.mpf(10) ** -1000 and near(
            u, x, 20
        ):  # tiny in truth, not zero up to rounding
            return bool(abs(u - v) <= abs(u) * mp.mpf(10) ** -1000)
        return near(u, v, 1000)


def whole_numbers(node: tuple) -> set[str]:
    """The unknowns that can only be whole numbers: in bounds of sums, in factorials and exponents of -1, rounded."""
    found: set[str] = set()
    for part in parts_of(node):
        if part[0] in ("sum", "prod"):
            found |= unknowns(part[2]) | unknowns(part[3])
        elif part[0] == "pow" and part[1] in (
            ("neg", ("num", Fraction(1))),
            ("num", Fraction(-1)),
            ("group", ("neg", ("num", Fraction(1)))),
        ):
            found |= unknowns(part[2])
        elif part[0] == "call" and part[1] in ("gcd", "lcm"):
            found |= set().union(*(unknowns(argument) for argument in part[2]))
        elif part[0] == "call" and part[1] in ("floor", "ceil"):
            found |= {name for name in unknowns(part) if name in "nkmNMKpqr"}
    return found


RANGES = [(0.3, 0.95), (1.1, 2.5), (3.0, 9.0), (0.05, 0.3), (10.0, 40.0), (0.7, 1.8), (2.0, 5.0), (30.0, 200.0)]


def points(nodes: list[tuple]):
    """Points at which expressions are compared: dictionaries of values of all their unknowns, the same for all."""
    names = sorted(set().union(*(unknowns(node) for node in nodes)))
    whole = set().union(*(whole_numbers(node) for node in nodes))
    signed = any(part[0] == "call" and part[1] in ROUNDING for node in nodes for part in parts_of(node))
    rounded = any(
        part[0] == "call" and part[1] in ("floor", "ceil", "gcd", "lcm") for node in nodes for part in parts_of(node)
    )
    for trial, (low, high) in enumerate(RANGES * (5 if rounded else 1)):
        point = {}
        for name in names:
            value = unknown_value(f"{name} {trial}", low, high)
            if name in whole:
                value = Fraction(2 + int(unknown_value(f"{name} {trial}", 0, 5 + 3 * trial)))
            elif signed and int(unknown_value(f"sign {name} {trial}", 0, 2)):
                value = -value
            point[name] = value
        yield point


def sampled(nodes: list[tuple], log_base: int | None = None) -> list[list] | None:
    """Values of several expressions at common points, (points, expressions).

    Points where one of them leaves the reals are dropped if three others remain. None where there are too few points.
    """
    real, left = [], []
    rounded = any(
        part[0] == "call" and part[1] in ("floor", "ceil", "gcd", "lcm") for node in nodes for part in parts_of(node)
    )
    with mp.workdps(80):
        for point in points(nodes):
            try:
                row, departed = [], False
                for node in nodes:
                    evaluator = Evaluator(point, log_base)
                    value = evaluator(node)
                    if not finite(value):
                        raise NoValue("infinite")
                    row.append(value)
                    departed |= evaluator.left_reals
                (left if departed else real).append(row)
            except (NoValue, ZeroDivisionError, OverflowError, ValueError):
                continue
            if len(real) == 5 and not rounded:
                break
    rows = real if len(real) >= 3 else real + left
    return rows if len(rows) >= 3 else None


def same_function(a: tuple, gold: tuple, tolerance: float, log_base: int | None = None) -> bool:
    """Whether two expressions agree wherever both are defined.

    With a tolerance, a single factor may be off by that much: 2.2 tau and 2.197 tau.
    """
    rows = sampled([a, gold], log_base)
    if rows is None:
        return False
    with mp.workdps(80):
        if all(near(x, y, 55) for x, y in rows):
            return True
        if tolerance and all(y != 0 for _, y in rows):
            ratios = [
                x / y for x, y in ((mp.mpf(1) * Evaluator({}).number(x), Evaluator({}).number(y)) for x, y in rows)
            ]
            return all(near(r, ratios[0], 40) for r in ratios) and abs(ratios[0] - 1) < tolerance
    return False


def proportional(a: tuple, gold: tuple, positive: bool, log_base: int | None = None) -> bool:
    """Whether one expression is a constant multiple of the other, by a positive constant if `positive`; not zero."""
    rows = sampled([a, gold], log_base)
    if rows is None:
        return False
    number = Evaluator({}).number
    with mp.workdps(80):
        rows = [(number(x), number(y)) for x, y in rows]
        if any(abs(x) < mp.mpf(10) ** -50 or abs(y) < mp.mpf(10) ** -50 for x, y in rows):
            return False
        ratios = [x / y for x, y in rows]
        if positive and not (isinstance(ratios[0], mp.mpf) and ratios[0] > 0):
            return False
        return all(near(r, ratios[0], 50) for r in ratios)
