"""Values of expressions: exact where they are rational, else to as many digits as a comparison needs.

Two constants are equal if they agree to 1,000 digits. Two expressions with unknowns are equal if they agree to 55
digits at several points: what is analytic and agrees at random points is the same function. The unknowns are positive
there, as lengths, masses and times are, so that sqrt(1/n) is 1/sqrt(n). Where absolute values or roundings make the
sign matter, negative points count too; an unknown that can only be a whole number, such as an upper bound, is one.
"""

import hashlib
import math
from fractions import Fraction

import mpmath
from mpmath import mp

from common.grading.answers.expressions import Node
from common.grading.answers.tree import parts_of, unknowns

MAX_BITS = 100_000  # of an exact number
MAX_EXPONENT = 10**9  # of two, for a number that is not exact
MAX_STEPS = 20_000  # nodes visited in one evaluation


class NoValue(ArithmeticError):
    """The expression has no finite value here, or none that can be found quickly."""


FUNCTIONS = {
    name: getattr(mpmath, name) for name in "sin cos tan cot sec csc sinh cosh tanh coth sech csch exp".split()
}
FUNCTIONS |= {"arc" + name: getattr(mpmath, "a" + name) for name in "sin cos tan cot sec csc sinh cosh tanh".split()}
FUNCTIONS |= {"Re": mpmath.re, "Im": mpmath.im, "gamma": mpmath.gamma, "zeta": mpmath.zeta}
SIGNED = {"floor", "ceil", "abs", "sign", "max", "min", "norm"}  # the sign of an unknown matters to these
WHOLE = {"floor", "ceil", "gcd", "lcm"}
MINUS_ONE = (("num", Fraction(-1)), ("neg", ("num", Fraction(1))))


def real(x):
    """Returns a rational number as an mpf; other numbers as they are."""
    return mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def unknown_value(key: str, low: float, high: float):
    """Returns a number between low and high that depends on the key alone."""
    digest = int.from_bytes(hashlib.sha256(key.encode(errors="replace")).digest()[:24], "big")
    return mp.mpf(low) + (mp.mpf(high) - mp.mpf(low)) * digest / 2**192


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

    def __call__(self, node: Node):
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise NoValue("too many steps")
        kind = node[0]
        if kind == "num":
            return node[1]
        if kind == "sym":
            if node[1] not in self.point:
                raise NoValue(f"the unknown {node[1]}")
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
            return real(top) / real(bottom)
        if kind == "pow":
            return self.power(self(node[1]), self(node[2]))
        if kind == "deg":
            return real(self(node[1])) * mp.pi / 180
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
        return real(a) + real(b)

    def multiply(self, a, b):
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            if a.numerator.bit_length() + b.numerator.bit_length() < MAX_BITS:
                return a * b
        return real(a) * real(b)

    def power(self, base, exponent):
        if isinstance(base, Fraction) and isinstance(exponent, Fraction):
            if exponent.denominator == 1:
                n = exponent.numerator
                if n < 0 and base == 0:
                    raise NoValue("a power of zero")
                if abs(n) * max(base.numerator.bit_length(), base.denominator.bit_length()) < MAX_BITS:
                    return base**n
        x, y = real(base), real(exponent)
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

    def call(self, name: str, arguments: Node):
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
            if not isinstance(x, Fraction) and near(x, mp.nint(x), mp.dps // 2):  # 2.999... up to rounding
                return mp.nint(x)
            rounded = math.floor if isinstance(x, Fraction) and name == "floor" else math.ceil
            return Fraction(rounded(x)) if isinstance(x, Fraction) else (mp.floor if name == "floor" else mp.ceil)(x)
        if name == "sign":
            return Fraction((real(x) > 0) - (real(x) < 0))
        if name in ("max", "min"):
            return (max if name == "max" else min)(values, key=real)
        if name in ("gcd", "lcm"):
            if not all(isinstance(v, Fraction) and v.denominator == 1 for v in values):
                raise NoValue(f"{name} of fractions")
            return Fraction((math.gcd if name == "gcd" else math.lcm)(*(v.numerator for v in values)))
        if name in ("ln", "lg", "log", "logb"):
            return self.logarithm(
                real(x), {"ln": None, "lg": 10, "log": self.log_base}.get(name) or (values[1:] or [None])[0]
            )
        y = real(x)
        if abs(y) > MAX_EXPONENT or name not in FUNCTIONS:
            raise NoValue(f"{name} of this argument")
        inverse = name in ("arcsin", "arccos", "arctanh") and isinstance(y, mp.mpf) and abs(y) > 1
        self.left_reals |= inverse or name == "arccosh" and mp.re(y) < 1
        return FUNCTIONS[name](y)

    def logarithm(self, x, base):
        base = base if base is None else real(base)
        if x == 0 or base is not None and (base == 0 or base == 1):
            raise NoValue("a logarithm of zero, or to the base 1")
        self.left_reals |= isinstance(x, mp.mpf) and x < 0
        return mp.log(x) if base is None else mp.log(x) / mp.log(base)

    def root(self, x, degree):
        if not isinstance(degree, Fraction) or degree.denominator != 1 or degree == 0:
            return self.power(x, real(1 / degree) if isinstance(degree, Fraction) else 1 / degree)
        n = degree.numerator
        y = real(x)
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
        if abs(real(x)) > 10**7:
            raise NoValue("a huge factorial")
        return mp.fac2(real(x)) if double else mp.factorial(real(x))

    def binomial(self, n, k):
        if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1:
            if n >= 0 and (0 <= min(k, n - k) <= 2000 and n < 10**7 or min(k, n - k) < 0):
                return Fraction(math.comb(n.numerator, k.numerator)) if k >= 0 else Fraction(0)
        if abs(real(n)) > 10**7 or abs(real(k)) > 10**7:
            raise NoValue("a huge binomial coefficient")
        return mp.binomial(real(n), real(k))

    def determinant(self, matrix: Node):
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
        key = name + ";".join(mp.nstr(real(a), 40) for a in arguments)
        return unknown_value(key, 0.5, 3.0)

    def series(self, node: Node):
        _, name, low, high, body = node
        low, high = self(low), self(high)
        if not all(isinstance(v, Fraction) and v.denominator == 1 for v in (low, high)) or high - low > 2000:
            raise NoValue("bounds of a sum")
        outer, total = self.point, Fraction(0 if node[0] == "sum" else 1)
        for k in range(int(low), int(high) + 1):
            self.point = outer | {name: Fraction(k)}
            total = self.add(total, self(body)) if node[0] == "sum" else self.multiply(total, self(body))
        self.point = outer
        return total


def finite(x) -> bool:
    return isinstance(x, Fraction) or bool(mp.isfinite(x))


def near(a, b, digits: int) -> bool:
    """Says whether two values agree to a number of digits."""
    a, b = real(a), real(b)
    return a == b or bool(abs(a - b) <= max(abs(a), abs(b)) * mp.mpf(10) ** -digits)


def settled(evaluate, digits: int):
    """Returns the value of `evaluate()` at a precision, where what is zero up to rounding is zero.

    A small value is computed again with twice the digits: rounding errors then change, true values do not.
    """
    with mp.workdps(digits):
        value = evaluate()
        if isinstance(value, Fraction) or not finite(value) or abs(value) >= mp.mpf(10) ** -(digits // 2):
            return value
    with mp.workdps(2 * digits):
        again = evaluate()
        return again if near(value, again, 10) else Fraction(0)


# ---------------------------------------------------------------- constants


def constant(node: Node, digits: int = 60, log_base: int | None = None):
    """Returns the value of an expression without unknowns: a Fraction if exact, else mpf or mpc; may be infinite."""
    value = settled(lambda: Evaluator({}, log_base)(node), digits)
    if isinstance(value, mp.mpc) and value.imag == 0:
        value = value.real
    if not isinstance(value, Fraction) and mp.isnan(value):
        raise NoValue("not a number")
    return value


def within(a, gold, tolerance: float) -> bool:
    """Says whether a value is equal to the gold value, or closer to it than the relative tolerance."""
    if isinstance(a, Fraction) and isinstance(gold, Fraction):
        return a == gold or abs(a - gold) < Fraction(str(tolerance)) * abs(gold)
    return bool(abs(real(a) - real(gold)) < tolerance * abs(real(gold)))


def same_constant(a: Node, gold: Node, tolerance: float, log_base: int | None = None) -> bool:
    """Says whether two expressions without unknowns have the same value: to 1,000 digits, or within the tolerance."""
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
    x, y = constant(a, 1100, log_base), constant(gold, 1100, log_base)
    with mp.workdps(1100):
        return near(x, y, 1000)


# ---------------------------------------------------------------- expressions with unknowns

RANGES = [(0.3, 0.95), (1.1, 2.5), (3.0, 9.0), (0.05, 0.3), (10.0, 40.0), (0.7, 1.8), (2.0, 5.0), (30.0, 200.0)]
ENOUGH = 5  # points at which expressions must agree


def calls(nodes: list[Node], names: set[str]) -> bool:
    return any(part[0] == "call" and part[1] in names for node in nodes for part in parts_of(node))


def whole_numbers(node: Node) -> set[str]:
    """Returns the unknowns that can only be whole numbers: bounds of sums, exponents of -1, arguments of gcd."""
    found: set[str] = set()
    for part in parts_of(node):
        if part[0] in ("sum", "prod"):
            found |= unknowns(part[2]) | unknowns(part[3])
        elif part[0] == "pow" and part[1] in MINUS_ONE:
            found |= unknowns(part[2])
        elif part[0] == "call" and part[1] in ("gcd", "lcm"):
            found |= unknowns(part)
        elif part[0] == "call" and part[1] in ("floor", "ceil"):
            found |= {name for name in unknowns(part) if name in set("nkmNMKpqr")}
    return found


def points(nodes: list[Node]):
    """Yields points at which expressions are compared: the values of their unknowns by name, always the same."""
    names = sorted(set().union(*map(unknowns, nodes)))
    whole = set().union(*map(whole_numbers, nodes))
    signed = calls(nodes, SIGNED)
    for trial, (low, high) in enumerate(RANGES * (5 if calls(nodes, WHOLE) else 1)):
        point = {}
        for name in names:
            point[name] = unknown_value(f"{name} {trial}", low, high)
            if name in whole:
                point[name] = Fraction(2 + int(unknown_value(f"{name} {trial}", 0, 5 + 3 * trial)))
            elif signed and unknown_value(f"sign {name} {trial}", 0, 2) < 1:
                point[name] = -point[name]
        yield point


def sampled(nodes: list[Node], log_base: int | None = None) -> list[list]:
    """Returns the values of several expressions at common points, (points, expressions).

    Points where one of them leaves the reals are dropped if three others remain. Raises NoValue for too few points.
    """
    inside: list[list] = []
    outside: list[list] = []
    signed = calls(nodes, SIGNED)
    for point in points(nodes):
        evaluators = [Evaluator(point, log_base) for _ in nodes]
        try:
            row = [settled(lambda e=e, n=n: e(n), 80) for e, n in zip(evaluators, nodes, strict=True)]
        except (NoValue, ZeroDivisionError, OverflowError, ValueError):
            continue
        if all(map(finite, row)):
            left = {e.left_reals for e in evaluators}  # ln|x| has values where ln x has none
            (inside if left == {False} or signed and len(left) == 2 else outside).append(row)
        if len(inside) == ENOUGH and not calls(nodes, WHOLE):
            break
    rows = inside if len(inside) >= 3 else inside + outside
    if len(rows) < 3:
        raise NoValue("too few points where the expressions have values")
    return rows


def same_function(a: Node, gold: Node, tolerance: float = 0.0, log_base: int | None = None) -> bool:
    """Says whether two expressions agree wherever both are defined.

    With a tolerance, a constant factor may be off by that much: 2.2 tau and 2.197 tau.
    """
    rows = sampled([a, gold], log_base)
    with mp.workdps(80):
        if all(near(x, y, 55) for x, y in rows):
            return True
        if not tolerance or any(y == 0 for _, y in rows):
            return False
        ratios = [real(x) / real(y) for x, y in rows]
        return all(near(r, ratios[0], 40) for r in ratios) and bool(abs(ratios[0] - 1) < tolerance)


def is_zero(node: Node, log_base: int | None = None) -> bool:
    return all(value == 0 for (value,) in sampled([node], log_base))


def proportional(a: Node, gold: Node, positive: bool, log_base: int | None = None) -> bool:
    """Says whether one expression is a constant multiple (positive if asked so) of the other, and not zero."""
    rows = sampled([a, gold], log_base)
    with mp.workdps(80):
        if any(x == 0 or y == 0 for x, y in rows):
            return False
        ratios = [real(x) / real(y) for x, y in rows]
        if positive and not (isinstance(ratios[0], mp.mpf) and ratios[0] > 0):
            return False
        return all(near(r, ratios[0], 50) for r in ratios)
