"""Trees of answers (the nodes are those of reader.py): their parts, a simpler form, and what plus-minus stands for."""

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache

from common.grading.answers.expressions import Node, list_of, product_of
from common.grading.answers.tokens import Unreadable

KINDS = set(
    "num sym const add neg mul div pow pm mp call app sum prod deg pct mat tuple set builder list group union inter "
    "minus rel text qty ratio time mod base".split()
)
COLLECTIONS = {"list", "set", "tuple", "union", "inter", "minus", "builder"}
PLAIN_BRACKETS = (("(", ")"), ("[", "]"))
MAX_BITS = 4000  # of a number that is folded; larger ones stay powers and products
MAX_SIGNS = 4  # of plus-minus in one answer


def parts_of(node) -> Iterator[Node]:
    """Yields a node and all nodes within it."""
    if isinstance(node, tuple):
        if node and isinstance(node[0], str):
            yield node
        for part in node:
            yield from parts_of(part)


@lru_cache(8192)
def unknowns(node: Node) -> frozenset[str]:
    """Returns the names in an expression, except those that a sum runs over."""
    bound = {part[1] for part in parts_of(node) if part[0] in ("sum", "prod")}
    return frozenset(part[1] for part in parts_of(node) if part[0] == "sym" and part[1] not in bound)


def mapped(node: Node, function: Callable[[Node], Node]) -> Node:
    """Returns a node whose children are replaced by the function's values."""

    def replaced(part):
        if not isinstance(part, tuple) or not part:
            return part
        return function(part) if isinstance(part[0], str) and part[0] in KINDS else tuple(map(replaced, part))

    return (node[0], *map(replaced, node[1:]))


def substituted(node, find: Callable[[Node], Node | None]):
    """Returns a tree in which every node for which `find` returns another one is replaced by it."""
    if not isinstance(node, tuple):
        return node
    found = find(node) if node and isinstance(node[0], str) else None
    return tuple(substituted(part, find) for part in node) if found is None else found


def commuted(node):
    """Returns a tree whose sums and products are in a fixed order."""
    if not isinstance(node, tuple):
        return node
    parts = tuple(map(commuted, node))
    return (parts[0], tuple(sorted(parts[1], key=repr))) if node[:1] in (("add",), ("mul",)) else parts


def bits(*numbers: Fraction) -> int:
    return sum(max(n.numerator.bit_length(), n.denominator.bit_length()) for n in numbers)


# ---------------------------------------------------------------- the simpler form


@lru_cache(8192)
def simplified(node: Node) -> Node:
    """Returns a tree without grouping brackets, with rational numbers folded and vectors multiplied out."""
    node = mapped(node, simplified)
    kind = node[0]
    if kind == "group":
        return node[1]
    if kind == "neg":
        return negated(node[1])
    if kind == "mul":
        return multiplied(list(node[1]))
    if kind == "div":
        return divided(node[1], node[2])
    if kind == "add":
        return added(list(node[1]))
    if kind == "pow" and node[1][0] == node[2][0] == "num":
        base, exponent = node[1][1], node[2][1]
        if exponent.denominator == 1 and (base or exponent > 0) and abs(exponent) * bits(base) < MAX_BITS:
            return ("num", base ** int(exponent))
    if kind == "qty":
        return measured(*node[1:])
    return node


def negated(node: Node) -> Node:
    kind = node[0]
    if kind == "num":
        return ("num", -node[1])
    if kind == "base":
        return ("base", -node[1], node[2], node[3][1:] if node[3][0] == "-" else "-" + node[3])
    if kind in ("qty", "pct", "deg"):
        return (kind, negated(node[1]), *node[2:])
    if kind == "mat" or kind == "tuple" and node[1:3] in PLAIN_BRACKETS:
        return mapped(node, negated)
    return ("neg", node)


def multiplied(factors: list[Node]) -> Node:
    whole = [f for f in factors if f[0] in ("mat", "qty", "tuple")]
    if len(whole) == 1:
        rest = product_of([f for f in factors if f is not whole[0]])
        if whole[0][0] == "qty":
            return measured(multiplied([rest, whole[0][1]]), *whole[0][2:])
        return mapped(whole[0], lambda cell: multiplied([rest, cell]))
    if any(f[0] in COLLECTIONS | {"mat", "qty", "rel", "text", "ratio", "time"} for f in factors):
        raise Unreadable("a product of what has no product")
    number = Fraction(1)
    others: list[Node] = []
    for f in factors:
        if f[0] == "num" and bits(number, f[1]) < MAX_BITS:
            number *= f[1]
        else:
            others.extend(f[1] if f[0] == "mul" else [f])
    if number != 1 or not others:
        others.insert(0, ("num", number))
    return product_of(others)


def divided(top: Node, bottom: Node) -> Node:
    if top[0] == bottom[0] == "num" and bottom[1] != 0:
        return ("num", top[1] / bottom[1])
    if top[0] in ("mat", "tuple"):
        return multiplied([("div", ("num", Fraction(1)), bottom), top])
    if top[0] == "qty" and bottom[0] != "qty":
        return measured(divided(top[1], bottom), *top[2:])
    return ("div", top, bottom)


def added(terms: list[Node]) -> Node:
    if all(t[0] == "num" for t in terms):
        return ("num", sum(t[1] for t in terms))
    if all(t[0] in ("qty", "pct") for t in terms) and len({(t[0], *t[2:]) for t in terms}) == 1:
        return (terms[0][0], added([t[1] for t in terms]), *terms[0][2:])
    if all(t[0] == "mat" for t in terms) and len({(len(t[1]), len(t[1][0])) for t in terms}) == 1:
        rows = zip(*(t[1] for t in terms), strict=True)
        return ("mat", tuple(tuple(added(list(cells)) for cells in zip(*row, strict=True)) for row in rows))
    return ("add", tuple(terms))


def measured(value: Node, scale: Fraction, dimension: tuple) -> Node:
    """A number with a unit; two units are multiplied, except that money may be named twice (\\$5 dollars)."""
    if value[0] == "qty":
        if value[2:] == (scale, dimension) or value[3] == (("money", 1),) and str(dimension).startswith("(('noun"):
            return value
        powers = dict(value[3])
        for base, power in dimension:
            powers[base] = powers.get(base, 0) + power
        return ("qty", value[1], value[2] * scale, tuple(sorted(powers.items())))
    return ("qty", value, scale, dimension) if dimension or scale != 1 else value


# ---------------------------------------------------------------- plus and minus


def has_signs(node: Node) -> bool:
    return any(part[0] in ("pm", "mp") for part in parts_of(node))


def spread(node: Node) -> Node:
    r"""Returns the list of an answer's meanings: \pm 2 is 2, -2; two \pm are independent, \mp goes against \pm."""
    if not has_signs(node):
        return node
    if node[0] in ("list", "set"):
        items: list[Node] = []
        for item in node[1]:
            items.extend(spread(item)[1] if has_signs(item) else [item])
        items = list(dict.fromkeys(items))
        return list_of(items) if node[0] == "list" else ("set", tuple(items))
    signs = [part[0] for part in parts_of(node) if part[0] in ("pm", "mp")]
    if len(signs) > MAX_SIGNS:
        raise Unreadable("too many plus-minus signs")

    def resolved(node, choice: Iterator[int]):
        if not isinstance(node, tuple):
            return node
        if node[:1] in (("pm",), ("mp",)):
            sign, inner = next(choice), resolved(node[1], choice)
            return inner if (sign > 0) == (node[0] == "pm") else ("neg", inner)
        return tuple(resolved(part, choice) for part in node)

    choices = [(sign,) * len(signs) for sign in (1, -1)]  # tied to each other
    if "mp" not in signs:
        choices = list(itertools.product((1, -1), repeat=len(signs)))
    return list_of(list(dict.fromkeys(simplified(resolved(node, iter(choice))) for choice in choices)))


# ---------------------------------------------------------------- names


def is_name(node: Node, value: Node | None = None) -> bool:
    """Whether a side of an equation only names what the other side is: x, f(x), a_{10}, P(A), and AB in AB = 5."""
    if node[0] == "group":
        return is_name(node[1], value)
    if node[0] == "sym" or node == ("const", "e"):
        return True
    if node[0] == "app":
        return all(simplified(argument)[0] in ("sym", "num") for argument in node[2])
    if value is None or unknowns(value):
        return False
    if node[0] == "call" and node[1] == "abs":
        return node[2][0][0] == "mul" and is_name(node[2][0], value)
    return node[0] == "mul" and all(f[0] == "sym" and len(f[1]) == 1 and f[1].isupper() for f in node[1])
