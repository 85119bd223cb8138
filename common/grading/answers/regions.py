r"""Sets of real numbers: intervals, unions, inequalities in one unknown and set builders, as disjoint intervals.

(-\infty, -1) \cup (4, \infty), x < -1 or x > 4, ]-\infty, -1[ \cup ]4, \infty[ and \{x \mid x < -1 or x > 4\} are the
same set.
"""

import itertools
from functools import lru_cache
from typing import NamedTuple

from common.grading.answers import values
from common.grading.answers.expressions import Node
from common.grading.answers.tree import COLLECTIONS, is_name, unknowns
from common.grading.answers.values import NoValue

ORDER = {"<": "<", "le": "<=", ">": ">", "ge": ">="}
TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
INFINITY = ("const", "inf")
MAX_INTERVALS = 40


class Interval(NamedTuple):
    low: Node
    low_in: bool  # whether the end belongs to the interval
    high: Node
    high_in: bool


class Region(NamedTuple):
    intervals: list[Interval]  # disjoint, in ascending order
    name: str | None = None  # of the unknown, where the answer names it


REALS = [Interval(("neg", INFINITY), False, INFINITY, False)]


# ---------------------------------------------------------------- operations on intervals


@lru_cache(8192)
def position(node: Node):
    """Returns where an end of an interval lies, to 30 digits."""
    if unknowns(node):
        raise NoValue("an end with unknowns")
    value = values.constant(node, 30)
    if isinstance(value, values.mpmath.mpc):
        raise NoValue("an end that is not real")
    return values.real(value)


def equal(x: Node, y: Node, tolerance: float = 0.0) -> bool:
    return x == y or values.same_constant(x, y, tolerance)


def before(x: Node, y: Node) -> bool:
    return bool(position(x) < position(y)) and not equal(x, y)


def united(intervals: list[Interval]) -> list[Interval]:
    """Returns the union: intervals that overlap or touch are joined, empty ones dropped."""
    if len(intervals) > MAX_INTERVALS:
        raise NoValue("too many intervals")
    joined: list[Interval] = []
    for new in sorted(intervals, key=lambda r: (position(r.low), not r.low_in)):
        if before(new.high, new.low) or equal(new.low, new.high) and not (new.low_in and new.high_in):
            continue
        last = joined[-1] if joined else None
        if last and (before(new.low, last.high) or equal(new.low, last.high) and (new.low_in or last.high_in)):
            if before(last.high, new.high):
                joined[-1] = Interval(last.low, last.low_in, new.high, new.high_in)
            elif equal(last.high, new.high):
                joined[-1] = last._replace(high_in=last.high_in or new.high_in)
        else:
            joined.append(new)
    return joined


def intersected(a: list[Interval], b: list[Interval]) -> list[Interval]:
    found = []
    for x, y in itertools.product(a, b):
        low = (y.low, y.low_in) if before(x.low, y.low) else (x.low, x.low_in and (y.low_in or not equal(x.low, y.low)))
        high = (x.high, x.high_in and (y.high_in or not equal(x.high, y.high)))
        high = (y.high, y.high_in) if before(y.high, x.high) else high
        found.append(Interval(*low, *high))
    return united(found)


def complement(intervals: list[Interval]) -> list[Interval]:
    found, low, low_in = [], ("neg", INFINITY), False
    for interval in intervals:
        found.append(Interval(low, low_in, interval.low, not interval.low_in))
        low, low_in = interval.high, not interval.high_in
    return united([*found, Interval(low, low_in, INFINITY, False)])


# ---------------------------------------------------------------- from trees


def is_region(node: Node) -> bool:
    """Whether an answer may be meant as a set of real numbers."""
    kind = node[0]
    if kind == "tuple":
        return len(node[3]) == 2
    if kind == "rel":
        return bool(set(node[2]) & {*ORDER, "ne", "in"})
    if kind == "list":
        return any(is_region(item) and item[0] != "tuple" for item in node[1])
    return kind in ("union", "inter", "minus", "builder") or node == ("sym", "set R") or all_reals(node)


def all_reals(node: Node) -> bool:
    return node[0] == "text" and node[1].lower() in (
        "all real numbers",
        "all reals",
        "all real values",
        "the real numbers",
        "real numbers",
    )


def region_of(node: Node) -> Region | None:
    """Returns the set of real numbers that an answer describes, or None."""
    kind = node[0]
    if node == ("sym", "set R") or all_reals(node):
        return Region(REALS)
    if kind == "set" and not any(item[0] in COLLECTIONS | {"rel", "text", "qty"} for item in node[1]):
        return Region(united([Interval(item, True, item, True) for item in node[1]]))
    if kind == "tuple" and len(node[3]) == 2:
        low, high = node[3]
        proper = not {low[0], high[0]} & COLLECTIONS and before(low, high)
        return Region([Interval(low, node[1] == "[", high, node[2] == "]")]) if proper else None
    if kind in ("union", "inter", "minus"):
        a, b = region_of(node[1]), region_of(node[2])
        if not a or not b or a.name and b.name and a.name != b.name:
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
        return Region(region.intervals) if region and region.name == repr(variable) else None
    return region_of_list(node) if kind == "list" else None


def region_of_relation(node: Node) -> Region | None:
    r"""Returns the region of a name compared with constants: x > 3, 2 < x \le 5, x \ne 3, x \in (2, 3]."""
    sides, relations = node[1], node[2]
    if relations == ("in",):
        region = region_of(sides[1])
        return Region(region.intervals, repr(sides[0])) if region and is_name(sides[0]) else None
    places = [i for i, side in enumerate(sides) if is_name(side) and side[0] in ("sym", "app")]
    if len(places) != 1 or len(sides) > 3 or len(sides) == 3 and places != [1]:
        return None
    at, intervals = places[0], REALS
    if any(unknowns(side) for i, side in enumerate(sides) if i != at):
        return None
    for i, relation in enumerate(relations):
        other = sides[i] if i != at else sides[i + 1]
        sign = ORDER.get(relation, relation)
        sign = TURNED.get(sign, sign) if i + 1 == at else sign  # 3 < x
        if sign in ("<", "<="):
            allowed = [Interval(("neg", INFINITY), False, other, sign == "<=")]
        elif sign in (">", ">="):
            allowed = [Interval(other, sign == ">=", INFINITY, False)]
        elif sign in ("=", "ne"):
            point = [Interval(other, True, other, True)]
            allowed = complement(point) if sign == "ne" else point
        else:
            return None
        intervals = intersected(intervals, allowed)
    return Region(intervals, repr(sides[at]))


def region_of_list(node: Node) -> Region | None:
    """Returns the union of x < 1 or x > 3, and the intersection of x > 1 and x < 3; of (0, 1), (2, 3) the union."""
    found = [region_of(item) if item[0] in ("rel", "tuple", "union", "set") else None for item in node[1]]
    regions = [region for region in found if region]
    if len(regions) < len(found) or len({region.name for region in regions}) > 1 or len(regions) > MAX_INTERVALS:
        return None
    conditions, separators = all(item[0] == "rel" for item in node[1]), set(node[2])
    apart = not any(intersected(x.intervals, y.intervals) for x, y in itertools.combinations(regions, 2))
    if conditions and apart and "and" in separators:  # p > 1 and p < -3 holds nowhere: it is compared as a list
        return None
    intervals = regions[0].intervals
    for region in regions[1:]:
        if conditions and not apart and "or" not in separators:
            intervals = intersected(intervals, region.intervals)
        else:
            intervals = united(intervals + region.intervals)
    return Region(intervals, regions[0].name)


def same_region(a: Node, g: Node, tolerance: float) -> bool | None:
    """Compares two sets of real numbers; None where the answers are not both meant as such sets.

    Two tuples, lists or sets of points are none of its business: (2, 3) may be a point.
    """

    def definite(node: Node) -> bool:
        if node[0] == "list":
            return any(item[0] in ("rel", "union") for item in node[1])
        return node[0] not in ("tuple", "set") and is_region(node)

    if not definite(a) and not definite(g):
        return None
    try:
        left, right = region_of(a), region_of(g)
    except NoValue:
        return None
    if left is None or right is None:
        return None
    if left.name and right.name and left.name != right.name or len(left.intervals) != len(right.intervals):
        return False
    return all(
        (x.low_in, x.high_in) == (y.low_in, y.high_in)
        and equal(x.low, y.low, tolerance)
        and equal(x.high, y.high, tolerance)
        for x, y in zip(left.intervals, right.intervals, strict=True)
    )
