r"""The strict verdict: whether the content of the last box means what the gold answer means.

`same_answer` reads both (answers/reader.py states the grammar), decides from the gold what kind of answer was asked for
and compares by the rule of that kind. Each rule is a function here, named after its kind:

    number, expression     `same_value`       exactly, or within the data set's relative tolerance (answers/values.py)
    number with a unit     `same_quantity`    in the same dimension, converted; a unit may be left out
    percent, angle         `same_percent`, `same_angle`
    number in a base       `same_based`       the digits with or without the base, or the value
    residue                `same_residue`
    equation               `same_equation`    a constant factor, sides in any order, solved for a name; x = 5 is 5
    inequality             `same_inequality`, `same_order`
    interval, union        `same_real_sets`   intervals, inequalities, set builders (same_region of answers/regions.py)
    tuple, vector          `same_tuple`       in order; by names; in any brackets that mean the same
    set, list              `same_collection`  in any order, each element once
    matrix                 `same_matrix`
    ratio, time            `same_ratio`, `same_time`
    choice, row of letters `same_choice`, `same_letters`
    word                   `same_text`

Sources: the golds of MATH, MinervaMath, AIME, HMMT, DeepScaleR and GSM8K, reports on the graders of public
repositories, and for what may be set otherwise the policies in common/README.md. What cannot be read is right only if
it is spelled like the gold answer. Nothing evaluates text as code, and no comparison runs long: numbers are bounded in
size, expressions in steps.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from common.grading.answers import values
from common.grading.answers.expressions import Node, list_of, product_of, unit_vector_names
from common.grading.answers.reader import MAX_LENGTH, read
from common.grading.answers.regions import ORDER, TURNED, all_reals, is_region
from common.grading.answers.regions import same_region as same_real_sets
from common.grading.answers.tokens import CIRCUMFLEX, Unreadable, characters
from common.grading.answers.tree import (
    COLLECTIONS,
    PLAIN_BRACKETS,
    commuted,
    has_signs,
    is_name,
    parts_of,
    simplified,
    spread,
    substituted,
    unknowns,
)
from common.grading.answers.units import UNITS
from common.grading.answers.values import NoValue

ZERO, ONE, HUNDRED = (("num", Fraction(n)) for n in (0, 1, 100))
NUMBERS = set("num add neg mul div pow call const pct deg pm base mod".split())


class Context(NamedTuple):
    """What a comparison depends on besides the two answers."""

    tolerance: float = 0.0  # relative, of numbers
    log_base: int | None = None  # what \log without a base means: 10, or None for e


EXACT = Context()


@lru_cache(8192)
def same_answer(answer: str, gold: str, tolerance: float = 0.0) -> bool:
    """Says whether an answer means the same as the gold answer.

    Args:
        answer: the content of a box.
        gold: the right answer, as the data set writes it.
        tolerance: relative error that a number may have.
    """
    if (spelled := spelling(answer)) == spelling(gold):
        return spelled != ""
    letters = choice_of(gold)
    if letters and same_choice(answer, letters):
        return True
    if rows := rows_of_letters(gold):
        return same_letters(answer, rows)
    g = read(gold)
    if g is None:
        return False
    if g[0] == "base" and spelled.strip("()") == g[3]:  # A5 for A5_{11}
        return True
    log_bases = (None, 10) if "log" in answer + gold else (None,)
    return any(same_quietly(a, g, Context(tolerance, b)) for a in readings(answer, g) for b in log_bases)


def spelling(text: str) -> str:
    """Returns a text without spaces, delimiters and sizes, for the comparison of what cannot be read."""
    if len(text) > MAX_LENGTH:
        return text
    text = characters(text.strip())
    text = re.sub(r"\\(?:left|right|displaystyle|q?quad|[bB]ig[lr])(?![A-Za-z])|\\[!,;: ]", " ", text)
    text = re.sub(r"\\[\[\]()]|(?<!\\)\$", "", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    letters_or_digits = r"(?<=[A-Za-z]) (?=[A-Za-z])|(?<=\d) (?=\d)"  # the spaces that stay
    text = re.sub(rf"({letters_or_digits})| ", r"\1", re.sub(r"\s+", " ", text))
    return re.sub(r"(?<!\.)\.$", "", text.strip())


def readings(answer: str, gold: Node) -> list[Node]:
    """Returns the trees of an answer in the readings of units and commas that the gold's kind allows."""
    value = gold[1] if gold[0] == "qty" else gold
    constant = not unknowns(value)
    options = {
        (False, "auto"): True,
        (True, "auto"): constant and value[0] not in ("text", "set", "rel"),
        (False, "number"): constant and value[0] in NUMBERS,
        (False, "list"): value[0] in ("list", "set"),
    }
    trees = (read(answer, loose, commas) for (loose, commas), allowed in options.items() if allowed)
    return list(dict.fromkeys(tree for tree in trees if tree is not None))


def same_quietly(a: Node, g: Node, context: Context) -> bool:
    """Compares two trees; what has no value is not the same."""
    try:
        return same(a, g, context)
    except (Unreadable, NoValue, RecursionError, OverflowError, ZeroDivisionError, ValueError):
        return False


def all_same(a: Sequence[Node], g: Sequence[Node], context: Context) -> bool:
    """Compares two sequences of trees in order."""
    return len(a) == len(g) and all(same(x, y, context) for x, y in zip(a, g, strict=True))


# ---------------------------------------------------------------- the kinds


def same(a: Node, g: Node, context: Context) -> bool:
    """Compares two trees by the rule of the gold's kind, or of the answer's where that is the more special one."""
    a, g = simplified(a), simplified(g)
    if a == g:
        return True
    if has_signs(a) or has_signs(g):
        return same(spread(a), spread(g), context)
    for unwrapped in (without_braces, without_name_if_alone, without_braces):
        a, g = unwrapped(a, g), unwrapped(g, a)
    kinds = {a[0], g[0]}
    for rule_kinds, rule in (
        ({"text"}, same_text),
        ({"time", "ratio"}, same_ratio),
        ({"mod"}, same_residue),
        ({"base"}, same_based),
    ):
        if kinds & rule_kinds:
            return rule(a, g, context)
    if is_region(a) or is_region(g):
        found = same_real_sets(a, g, context.tolerance)
        if found is not None:
            return found
    for rule_kinds, rule in (
        (COLLECTIONS, same_group),
        ({"rel"}, same_relation),
        ({"mat"}, same_matrix),
        ({"qty"}, same_quantity),
        ({"pct"}, same_percent),
    ):
        if kinds & rule_kinds:
            return rule(a, g, context)
    return same_angle(a, g, context) if is_angle(a) or is_angle(g) else same_value(a, g, context)


def without_braces(node: Node, other: Node) -> Node:
    """The one element of a set, where the other answer is no set: {2} is 2, and {(1, 2)} is (1, 2)."""
    alone = node[0] == "set" and len(node[1]) == 1 and node[1][0][0] != "set"
    if alone and (other[0] not in COLLECTIONS or other[0] == node[1][0][0]):
        return node[1][0]
    return node


def without_name_if_alone(node: Node, other: Node) -> Node:
    r"""The value of x = 5 or x \in \{5\}, where the other answer names nothing."""
    if node[0] != "rel" or other[0] == "rel" or node[2] == ("in",) and node[1][1][0] != "set":
        return node
    if is_region(other) and "=" not in node[2] and "in" not in node[2]:
        return node
    if named_values(other) is not None or node[2] == ("equiv",) and other[0] not in ("mod", "num"):
        return node
    found = name_and_value(node)
    return found[1] if found else node


# ---------------------------------------------------------------- numbers and expressions


def same_value(a: Node, g: Node, context: Context) -> bool:
    """Compares values: constants exactly or within the tolerance, expressions with unknowns at several points."""
    if a[0] == g[0] == "num":
        return values.within(a[1], g[1], context.tolerance)
    a, g = with_common_names(a, g)
    if not unknowns(a) and not unknowns(g) and not any(part[0] == "app" for part in (*parts_of(a), *parts_of(g))):
        return values.same_constant(a, g, context.tolerance, context.log_base)
    return values.same_function(a, g, context.tolerance, context.log_base)


def with_common_names(a: Node, g: Node) -> tuple[Node, Node]:
    """Names functions and derivatives alike: if one side writes x(t) and the other x, or x' and dx/dt, t is dropped."""
    applied, gold_applied = ({part[1] for part in parts_of(node) if part[0] == "app"} for node in (a, g))
    dropped = {name for name in applied ^ gold_applied if name in unknowns(a) | unknowns(g) or "'" in name}
    by_variable, gold_by_variable = ({"|" in name for name in unknowns(node) if "'" in name} for node in (a, g))
    mixed = by_variable != gold_by_variable

    def shorter(node: Node) -> Node | None:
        if node[0] == "app" and node[1] in dropped and all(simplified(argument)[0] == "sym" for argument in node[2]):
            return shorter(("sym", node[1]))
        if node[0] == "sym" and len(node) == 2 and "'" in node[1] and mixed:
            return ("sym", node[1].split("|")[0])
        return node if node[0] == "sym" and node[1] in dropped else None

    return (substituted(a, shorter), substituted(g, shorter)) if dropped or mixed else (a, g)


def same_quantity(a: Node, g: Node, context: Context) -> bool:
    """Compares numbers with units: converted if both have one, in the same dimension; either may leave it out."""
    if a[0] == g[0] == "qty":
        converted = product_of([("num", a[2] / g[2]), a[1]]) if a[2] != g[2] else a[1]
        return a[3] == g[3] and same(converted, g[1], context)
    quantity, other = (a, g) if a[0] == "qty" else (g, a)
    is_temperature = quantity[3] in (UNITS["°C"][1], UNITS["°F"][1])
    if other[0] == "pct" or is_angle(other) and not is_temperature:
        return False
    return same(a[1], g, context) if quantity is a else same(a, g[1], context)


def same_percent(a: Node, g: Node, context: Context) -> bool:
    """Compares percentages: a gold 25% is 25% or 25, a gold 1/4 is 25%; a gold 25 may be answered 25% too."""
    if g[0] == "pct":
        return same(a[1] if a[0] == "pct" else a, g[1], context)
    if same_value(("div", a[1], HUNDRED), g, context):
        return True
    return g[0] == "num" and abs(g[1]) >= 1 and same(a[1], g, context)


def is_angle(node: Node) -> bool:
    return node[0] == "deg" or node[:2] == ("call", "rad")


def same_angle(a: Node, g: Node, context: Context) -> bool:
    r"""Compares angles: 60^\circ is 60, \pi/3 and \pi/3 radians; \pi/3 is not \pi/3 degrees."""
    radians, gold_radians = (node[2][0] if node[:2] == ("call", "rad") else node for node in (a, g))
    has_pi, gold_has_pi = (("const", "pi") in parts_of(node) for node in (a, g))
    if g[0] == "deg" and not is_angle(a) and not has_pi:
        return same_value(a, g[1], context)
    if a[0] == "deg" and not is_angle(g) and not gold_has_pi:
        return same_value(a[1], g, context)
    if a[0] == g[0] == "deg":
        return same_value(a[1], g[1], context)
    return same_value(radians, gold_radians, context)


def same_based(a: Node, g: Node, context: Context) -> bool:
    """Compares numbers in a base: 52_8 is 52_8, its digits 52 and its value 42, but not 52_9."""
    if a[0] == g[0] == "base":
        return a[1] == g[1] and a[2] in (g[2], 10)
    if g[0] != "base":
        return g[0] == "num" and a[1] == g[1]
    return a[0] == "num" and (a[1] == g[1] or re.fullmatch(r"-?[\d.]+", g[3]) is not None and a[1] == Fraction(g[3]))


def same_residue(a: Node, g: Node, context: Context) -> bool:
    r"""Compares 3 \pmod 7: to the same modulus as residues, else by the number before it."""
    if a[0] != "mod" or g[0] != "mod":
        return same(a[1] if a[0] == "mod" else a, g[1] if g[0] == "mod" else g, context)
    if not same(a[2], g[2], context):
        return False
    if a[1][0] == g[1][0] == g[2][0] == "num" and g[2][1] != 0:
        return (a[1][1] - g[1][1]) % g[2][1] == 0
    return same(a[1], g[1], context)


def same_ratio(a: Node, g: Node, context: Context) -> bool:
    """Compares ratios by proportion, a ratio a:b also with the fraction a/b; and times of day."""
    if a[0] == g[0] == "time":
        return same_time(a, g)

    def terms(node: Node) -> tuple | None:
        if node[0] == "time":
            return (("num", Fraction(node[1])), ("num", Fraction(node[2]))) if not node[3] else None
        if node[0] == "ratio":
            return node[1]
        fraction = node[0] == "div" or node[0] == "num" and node[1].denominator != 1
        return (node, ONE) if fraction else None

    left, right = terms(a), terms(g)
    if left is None and right and right[1:] == (ONE,):  # 3 for 3:1
        left = (a, ONE) if a[0] == "num" else None
    if not left or not right or len(left) != len(right) or any(same_value(x, ZERO, EXACT) for x in (*left, *right)):
        return False
    return all(
        same_value(product_of([x, right[0]]), product_of([y, left[0]]), EXACT) for x, y in zip(left, right, strict=True)
    )


def same_time(a: Node, g: Node) -> bool:
    """Compares times of day: 12:00 is 12:00 p.m.; 7:30 a.m. is not 7:30 p.m."""

    def minutes(node: Node) -> int:
        hour = node[1] % 12 + 12 if node[3] == "pm" and node[1] <= 12 else node[1] % 12 if node[3] == "am" else node[1]
        return 60 * hour + node[2]

    return minutes(a) == minutes(g) or not (a[3] and g[3]) and a[1:3] == g[1:3]


# ---------------------------------------------------------------- names and values


def name_and_value(node: Node) -> tuple[str, Node] | None:
    """Returns the name and the value of x = 5, f(x) = 2x, 5 = x, AB = 5, S = 3 * 4 = 12; None for other equations."""
    if node[0] != "rel" or not (set(node[2]) <= {"=", "approx"} or node[2] in (("in",), ("equiv",))):
        return None
    sides, relations = node[1], node[2]
    if (
        relations == ("=",)
        and not is_name(sides[0], sides[1])
        and is_name(sides[1], sides[0])
        and not unknowns(sides[0])
    ):
        sides = sides[::-1]
    if not is_name(sides[0], sides[-1]):
        return None
    exact = relations.index("approx") if "approx" in relations[1:] else len(relations)  # x = \sqrt 2 \approx 1.41
    return (repr(sides[0]), sides[exact]) if true_chain(sides[1 : exact + 1]) else None


def true_chain(sides: Sequence[Node]) -> bool:
    r"""Whether a chain such as 5 \times 3 = 15 is true, as far as it has no unknowns."""
    constants = [side for side in sides if not unknowns(side) and side[0] not in COLLECTIONS | {"rel", "text"}]
    return all(same_quietly(side, constants[0], EXACT) for side in constants[1:])


def named_values(node: Node) -> dict[str, Node] | list[dict[str, Node]] | None:
    """Returns values by name for x = 3, y = 4 and (x, y) = (3, 4), and a list of such for p=5, q=2; p=7, q=2."""
    if node[0] == "rel" and node[2] == ("=",) and node[1][0][0] == "tuple" and node[1][1][:3] == ("tuple", "(", ")"):
        names, given = node[1][0][3], node[1][1][3]
        same_length = len(names) == len(given) and all(map(is_name, names))
        return dict(zip(map(repr, names), given, strict=True)) if same_length else None
    if node[0] not in ("list", "set", "tuple"):
        return None
    items = items_of(node)
    if all(item[0] in ("list", "tuple", "rel") for item in items):
        groups = [named_values(item) for item in items]
        named = [group for group in groups if isinstance(group, dict)]
        if len(named) == len(groups):
            return named
    pairs = [pair for item in items if (pair := name_and_value(item))]
    if len(pairs) < 2 or len(pairs) < len(items):
        return None
    count = len({name for name, _ in pairs})
    if count == len(pairs):
        return dict(pairs)
    parts = [dict(pairs[i : i + count]) for i in range(0, len(pairs), count)]
    return parts if count > 1 and all(part.keys() == parts[0].keys() for part in parts) else None


def as_tuple(named: dict[str, Node]) -> Node:
    """Returns named values as a tuple: x, y, z and the like in alphabetical order, other names as they are written."""
    names = list(named)
    if all(re.fullmatch(r"\('sym', '[t-z]'\)", name) for name in names):
        names.sort()
    return ("tuple", "(", ")", tuple(named[name] for name in names))


def same_named(a: dict[str, Node], g: dict[str, Node], context: Context) -> bool:
    """Compares values by name, in any order of the names."""
    return a.keys() == g.keys() and all(same(a[name], g[name], context) for name in g)


# ---------------------------------------------------------------- tuples, lists, sets, matrices


def items_of(node: Node) -> tuple:
    return node[1] if node[0] in ("list", "set") else node[3] if node[0] == "tuple" else (node,)


def same_group(a: Node, g: Node, context: Context) -> bool:
    """Compares tuples, lists and sets: named values by their names, others by the rule of the gold's kind."""
    names, gold_names = named_values(a), named_values(g)
    if names is not None and gold_names is not None:
        if isinstance(names, dict) and isinstance(gold_names, dict):
            return same_named(names, gold_names, context)
        names, gold_names = ([n] if isinstance(n, dict) else n for n in (names, gold_names))
        return paired(names, gold_names, lambda x, y: same_named(x, y, context))
    if isinstance(gold_names, dict):  # the values alone must be in the order of the names
        unnamed = a[0] in ("tuple", "list") and not any(map(name_and_value, items_of(a)))
        return unnamed and all_same(items_of(a), items_of(as_tuple(gold_names)), context)
    if gold_names is not None:
        return same_collection(a, list_of([as_tuple(group) for group in gold_names]), context)
    if isinstance(names, list):
        return same_collection(list_of([as_tuple(group) for group in names]), g, context)
    if names is not None:
        if g[0] not in ("list", "set") or any(item[0] == "tuple" for item in items_of(g)):
            return same(as_tuple(names), g, context)
        return same_collection(list_of(list(names.values())), g, context)
    for node, other in ((a, g), (g, a)):  # (x, y) \in \{...\}, x \in \{...\}, S = \{...\}
        if node[0] == "rel" and other[0] != "rel":
            inner = node[1][-1] if node[2] == ("in",) or len(node[1]) == 2 and is_name(node[1][0]) else None
            return inner is not None and (same(inner, g, context) if node is a else same(a, inner, context))
    if a[0] == "mat" or g[0] == "mat":
        return same_matrix(a, g, context)
    if {a[0], g[0]} == {"list", "tuple"}:  # 3, 4 and (3, 4)
        bare, brackets = (a, g) if a[0] == "list" else (g, a)
        return set(bare[2]) <= {","} and brackets[1:3] == ("(", ")") and all_same(items_of(a), items_of(g), context)
    if "tuple" in (a[0], g[0]) and g[0] not in ("list", "set"):
        return same_tuple(a, g, context)
    if g[0] in ("list", "set"):
        return same_collection(a, g, context)
    return a[0] == g[0] in ("union", "inter", "minus", "builder") and all_same(a[1:], g[1:], context)


def same_tuple(a: Node, g: Node, context: Context) -> bool:
    r"""Compares tuples, intervals and vectors in order: (1, 2), \langle 1, 2 \rangle, \mathbf i + 2 \mathbf j."""
    if a[0] == g[0] == "tuple":
        return a[1:3] == g[1:3] and all_same(a[3], g[3], context)
    components, gold_components = components_of(a, g), components_of(g, a)
    return components is not None and gold_components is not None and all_same(components, gold_components, context)


def components_of(node: Node, other: Node) -> tuple | None:
    r"""Returns the components of a tuple, a row, a column, or a sum of \mathbf i, \mathbf j; None for other answers."""
    if node[0] == "tuple":
        return node[3] if node[1:3] in PLAIN_BRACKETS else None
    if node[0] == "mat":
        rows = node[1]
        return rows[0] if len(rows) == 1 else tuple(row[0] for row in rows) if len(rows[0]) == 1 else None
    if node[0] not in ("add", "neg", "mul", "div", "sym"):
        return None
    length = len(components_of(other, ZERO) or ()) if other[0] in ("tuple", "mat") else 0
    names = unit_vector_names(length)
    used = {name for name in unknowns(node) if name.endswith(CIRCUMFLEX)}
    if not used or not used <= set(names):
        return None

    def along(direction: str) -> Node:
        return simplified(
            substituted(
                node, lambda n: ("num", Fraction(n[1] == direction)) if n[0] == "sym" and n[1] in names else None
            )
        )

    return tuple(map(along, names)) if values.is_zero(along("")) else None


def paired(a: Sequence, g: Sequence, same_item: Callable) -> bool:
    """Whether the items of a and g can be paired, each used once."""
    rest = list(a)
    for y in g if len(a) == len(g) else ():
        found = next((i for i, x in enumerate(rest) if same_item(x, y)), None)
        if found is None:
            return False
        rest.pop(found)
    return len(a) == len(g)


def same_collection(a: Node, g: Node, context: Context) -> bool:
    """Compares lists and sets in any order, each element once."""
    items, gold_items = (items_of(node) if node[0] in ("list", "set") else (node,) for node in (a, g))
    return paired(items, gold_items, lambda x, y: same_quietly(x, y, context))


def same_matrix(a: Node, g: Node, context: Context) -> bool:
    """Compares matrices cell by cell; a single row or column may also be a tuple or a sum of unit vectors."""
    if a[0] == g[0] == "mat":
        return len(a[1]) == len(g[1]) and all(all_same(x, y, context) for x, y in zip(a[1], g[1], strict=True))
    if g[0] == "mat" and len(g[1]) == len(g[1][0]) == 1:
        return same(a, g[1][0][0], context)
    return same_tuple(a, g, context)


# ---------------------------------------------------------------- equations and inequalities


def difference(sides: Sequence[Node]) -> Node:
    return ("add", (sides[0], ("neg", sides[1])))


def same_relation(a: Node, g: Node, context: Context) -> bool:
    """Compares equations and inequalities with each other, and x = 5 with 5."""
    if a[0] != "rel" or g[0] != "rel":
        return same_chain_value(*((a, g) if a[0] == "rel" else (g, a)), context, gold=g)
    found, gold_found = name_and_value(a), name_and_value(g)
    if found and gold_found and found[0] == gold_found[0] and same_quietly(found[1], gold_found[1], context):
        return True
    relations, gold_relations = set(a[2]), set(g[2])
    if relations == gold_relations == {"="}:
        return same_equation(a, g, context)
    if relations | gold_relations <= set(ORDER):
        return same_order(a, g, context) or same_inequality(a, g, context)
    in_order = a[2] == g[2] and all(same_quietly(x, y, context) for x, y in zip(a[1], g[1], strict=True))
    return in_order or a[2] == g[2] == ("ne",) and all_same(a[1][::-1], g[1], context)


def same_chain_value(chain: Node, value: Node, context: Context, gold: Node) -> bool:
    r"""Compares a chain of equations with a value: 5 \times 3 = 15, \sqrt 2 \approx 1.41, and m + n = 113 for a number.

    The chain must be true throughout, except for what stands behind \approx.
    """
    sides, relations = chain[1], chain[2]
    if not set(relations) <= {"=", "approx"}:
        return False
    if value is gold and value[0] == "num" and asked_for(sides[0]):
        return not any(map(unknowns, sides[1:])) and true_chain(sides[1:]) and same(sides[-1], value, context)
    exact = sides[: relations.index("approx") + 1] if "approx" in relations else sides
    if unknowns(value) or any(map(unknowns, exact)) or not true_chain(exact):
        return False
    if value is gold:
        return all(same_quietly(side, value, context) for side in exact)
    return all(same_quietly(value, side, context) for side in exact)


def asked_for(node: Node) -> bool:
    """Whether an expression may be what a problem asks for: sums, products and powers of several unknowns."""
    return len(unknowns(node)) > 1 and {part[0] for part in parts_of(node)} <= set(
        "sym num add neg mul div pow".split()
    )


def with_derivatives(node: Node) -> Node:
    """An equation between differentials, x dy = y dx, as one with derivatives: dx becomes 1, dy becomes y'."""
    pairs = [(x, y) for part in parts_of(node) if part[0] == "mul" for x, y in zip(part[1], part[1][1:], strict=False)]
    names = {y[1] for x, y in pairs if x == ("sym", "d") and y[0] == "sym"}
    variable = "t" if "t" in names else "x"
    if len(names) < 2 or variable not in names:
        return node

    def joined(part: Node) -> Node | None:
        if part[0] != "mul" or ("sym", "d") not in part[1]:
            return None
        factors = list(part[1])
        at = factors.index(("sym", "d"))
        if at + 1 == len(factors) or factors[at + 1][0] != "sym":
            return None
        name = factors[at + 1][1]
        factors[at : at + 2] = [ONE if name == variable else ("sym", name + "'")]
        return substituted(product_of(factors), joined)

    return substituted(node, joined)


def same_equation(a: Node, g: Node, context: Context) -> bool:
    """Compares equations: the differences of the sides are proportional, or one is solved for a name of the other."""
    a, g = with_common_names(with_derivatives(a), with_derivatives(g))
    if len(a[1]) != len(g[1]):
        return False
    orders = (a[1], a[1][::-1])
    if len(g[1]) > 2 or not unknowns(g):
        return any(all(same_quietly(x, y, context) for x, y in zip(sides, g[1], strict=True)) for sides in orders)
    left, right = difference(a[1]), difference(g[1])
    if values.is_zero(right, context.log_base):  # an identity is its own two sides
        return any(commuted(sides) == commuted(g[1]) for sides in orders)
    if values.proportional(left, right, False, context.log_base):
        return True
    return solves(left, g[1], context) or solves(right, a[1], context)


def solves(difference: Node, sides: Sequence[Node], context: Context) -> bool:
    """Whether name = expression solves an equation, left side minus right side, that is linear in that name."""
    name, expression = sides if sides[0][0] == "sym" else sides[::-1]
    if name[0] != "sym" or name[1] in unknowns(expression) or name[1] not in unknowns(difference):
        return False
    if any(part[0] in ("call", "pow", "app") and name in parts_of(part) for part in parts_of(difference)):
        return False

    def shifted(step: int) -> Node:
        value = ("add", (expression, ("num", Fraction(step))))
        return substituted(difference, lambda node: value if node == name else None)

    if not values.is_zero(shifted(0), context.log_base) or values.is_zero(shifted(1), context.log_base):
        return False
    return values.same_function(shifted(1), ("neg", shifted(-1)), 0.0, context.log_base)


def same_order(a: Node, g: Node, context: Context) -> bool:
    """Compares chains of inequalities, read in either direction: 3 < x < 5 is 5 > x > 3."""
    signs, gold_signs = ([ORDER[relation] for relation in node[2]] for node in (a, g))
    for order, sides in ((signs, a[1]), ([TURNED[sign] for sign in signs[::-1]], a[1][::-1])):
        if order == gold_signs and all(same_quietly(x, y, context) for x, y in zip(sides, g[1], strict=True)):
            return True
    return False


def same_inequality(a: Node, g: Node, context: Context) -> bool:
    """Compares inequalities of two sides: the differences are proportional by a positive factor."""
    if len(a[2]) != 1 or len(g[2]) != 1:
        return False
    left, right = difference(a[1]), difference(g[1])
    sign, gold_sign = ORDER[a[2][0]], ORDER[g[2][0]]
    if sign != gold_sign:
        left, sign = ("neg", left), TURNED[sign]
    return sign == gold_sign and values.proportional(left, right, True, context.log_base)


# ---------------------------------------------------------------- choices, rows of letters, words

DECORATION = re.compile(
    r"\\(?:text\w{0,6}|math\w\w|boldsymbol|mbox|bf|rm|boxed|left|right|q?quad)(?![A-Za-z])|[{}$~]|\\[,;:! \[\]()]"
)
LEAD = re.compile(r"(?:(?:the )?(?:correct )?(?:answer|option|choice)(?: is|:)? )+", re.IGNORECASE)
ARTICLES = {"a", "an", "the"}


def choice_of(gold: str) -> str | None:
    r"""Returns the letter of a gold answer that is a choice: C, (C), \text{(C)}; with its text: \text{(A) } 0."""
    plain = DECORATION.sub("", gold).replace(" ", "") if len(gold) < 200 else ""
    found = re.fullmatch(r"\(?([A-J])\)?[.,]?", plain) or re.match(r"\(([A-J])\)[^,(]", plain)
    return found[1] if found else None


def same_choice(answer: str, letter: str) -> bool:
    r"""Compares a choice, with or without brackets and its text: C, (C), \textbf{(C)}\ 12, C. 12, Option C."""
    if len(answer) > MAX_LENGTH:
        return False
    plain = " ".join(DECORATION.sub(" ", answer).split())
    if lead := LEAD.match(plain):
        plain = plain[lead.end() :]
    alone = re.fullmatch(r"([A-Z])\s?[.,]?", plain)
    bracketed = re.match(r"\(\s?([A-Z])\s?\)(?!\s?(?:,|and\b|or\b|&|\())", plain)
    marked = re.match(r"([A-Z])\s?[.):]\s(?!.*\b[A-Z]\s?[.):]\s)", plain)
    found = alone or bracketed or marked
    return found is not None and found[1] == letter


def is_row(letters: str) -> bool:
    """Whether letters are compared as a row: all capitals (ACF, MR), or a capital before small letters with a vowel."""
    if len(letters) < 2 or not letters.isascii() or not letters.isalpha():
        return False
    return letters.isupper() or letters.istitle() and bool(set(letters.lower()) & set("aeiou"))


def rows_of_letters(text: str) -> list[str] | None:
    """Returns the sides of an answer that is a row of letters, or an equation of two: ACF, MR=SRMC; else None."""
    sides = DECORATION.sub("", text).split("=") if len(text) < 200 else []
    sides = [side.strip().rstrip(".") for side in sides]
    if len(sides) not in (1, 2) or not is_row(sides[-1]) or not re.fullmatch("[A-Za-z]+", sides[0]):
        return None
    return sides


def same_letters(answer: str, gold: list[str]) -> bool:
    """Compares rows of letters by their spelling, and the two sides of an equation of them in any order."""
    rows = rows_of_letters(answer)
    if rows is None:
        node = read(answer)
        return node is not None and len(gold) == 1 and same_quietly(node, ("text", gold[0]), EXACT)
    if len(rows) == 2 and len(gold) == 1 and len(rows[0]) == 1:  # x = ACF
        rows = rows[1:]
    orders = (rows, rows[::-1])
    return len(rows) == len(gold) and any(
        all(same_words((x,), (y,)) for x, y in zip(order, gold, strict=True)) for order in orders
    )


def same_words(a: Sequence[str], g: Sequence[str]) -> bool:
    """Compares words by spelling, without articles; capitals count in single letters and in rows of capitals."""
    a, g = ([word for word in words if word.lower() not in ARTICLES or len(words) == 1] for words in (a, g))
    if len(a) != len(g):
        return "".join(a) == "".join(g)

    def same_word(x: str, y: str) -> bool:
        natural = all(word.islower() or word.isupper() or word.istitle() for word in (x, y))
        code = len(y) < 2 or y.isupper() and y not in ("YES", "NO", "TRUE", "FALSE")
        return x == y or natural and not code and x.lower() == y.lower()

    return all(map(same_word, a, g))


def text_of(node: Node) -> tuple[str, ...] | None:
    """Returns the words of a text, a name, a product of letters, or a list of such."""
    if node[0] == "text":
        return tuple(node[1].split())
    if node[0] == "group":
        return text_of(node[1])
    if node[0] == "sym":
        return (node[1],)
    if node[0] == "mul" and all(f[0] == "const" or f[0] == "sym" and len(f[1]) == 1 for f in node[1]):
        return ("".join(f[1] for f in node[1]),)
    return None


def same_text(a: Node, g: Node, context: Context) -> bool:
    """Compares words by their spelling: "an ellipse" is "ellipse", "The function is even" is "even"."""
    if all_reals(a) or all_reals(g):
        return same_real_sets(a, g, context.tolerance) or False
    words, gold_words = text_of(a), text_of(g)
    if words is None or gold_words is None:
        return False
    if same_words(words, gold_words):
        return True
    verb = next((i for i, word in enumerate(words) if word.lower() in ("is", "are")), None)
    return verb is not None and same_words(words[verb + 1 :], gold_words)
