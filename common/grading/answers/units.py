"""Units of measurement, magnitudes and number words, as the reader of answers knows them.

A unit is a scale and a dimension, a tuple of (base quantity, power) in alphabetical order: 5 km/h is 5/3.6 of length^1
time^-1. Nouns that are counted (18 students) are base quantities of their own. A small table serves better here than a
library of units: an answer names a few dozen units, in plain words as often as in symbols, and nearly all the work is
to tell a unit from a variable, which depends on how the letters are set.
"""

from fractions import Fraction

Dimension = tuple[tuple[str, int], ...]


def _table() -> dict[str, tuple[Fraction, Dimension]]:
    length, time, mass, money = (("length", 1),), (("time", 1),), (("mass", 1),), (("money", 1),)
    area, volume, speed = (("length", 2),), (("length", 3),), (("length", 1), ("time", -1))
    energy = (("length", 2), ("mass", 1), ("time", -2))
    power, force = (("length", 2), ("mass", 1), ("time", -3)), (("length", 1), ("mass", 1), ("time", -2))
    pressure, charge = (("length", -1), ("mass", 1), ("time", -2)), (("current", 1), ("time", 1))
    voltage = (("current", -1), ("length", 2), ("mass", 1), ("time", -3))
    resistance = (("current", -2), ("length", 2), ("mass", 1), ("time", -3))
    field, flux = (
        (("current", -1), ("mass", 1), ("time", -2)),
        (("current", -1), ("length", 2), ("mass", 1), ("time", -2)),
    )
    capacitance = (("current", 2), ("length", -2), ("mass", -1), ("time", 4))
    inductance = (("current", -2), ("length", 2), ("mass", 1), ("time", -2))
    rows = [  # spellings, scale, dimension; the plural in s is understood
        ("m meter metre", "1", length),
        ("in inch inches", "0.0254", length),
        ("ft foot feet", "0.3048", length),
        ("yd yard", "0.9144", length),
        ("mi mile", "1609.344", length),
        ("Å AA angstrom", "1e-10", length),
        ("micron", "1e-6", length),
        ("AU au", "149597870700", length),
        ("ly light-year lightyear", "9460730472580800", length),
        ("pc parsec", "30856775814913673", length),
        ("ha hectare", "10000", area),
        ("acre", "4046.8564224", area),
        ("L l liter litre", "0.001", volume),
        ("cc", "0.000001", volume),
        ("gal gallon", "0.003785411784", volume),
        ("mph", "0.44704", speed),
        ("kph kmh", "5/18", speed),
        ("s sec second", "1", time),
        ("min minute", "60", time),
        ("h hr hour", "3600", time),
        ("d day", "86400", time),
        ("week", "604800", time),
        ("month", "1", (("month", 1),)),
        ("yr year", "1", (("year", 1),)),
        ("g gm gram gramme", "0.001", mass),
        ("t ton tonne", "1000", mass),
        ("lb lbs pound", "0.45359237", mass),
        ("oz ounce", "0.028349523125", mass),
        ("dollar USD usd buck", "1", money),
        ("cent ¢", "0.01", money),
        ("EUR eur euro", "1", (("euro", 1),)),
        ("GBP", "1", (("sterling", 1),)),
        ("yen", "1", (("yen", 1),)),
        ("rupee", "1", (("rupee", 1),)),
        ("yuan", "1", (("yuan", 1),)),
        ("N newton", "1", force),
        ("dyn dyne", "1e-5", force),
        ("J joule", "1", energy),
        ("erg", "1e-7", energy),
        ("eV", "1.602176634e-19", energy),
        ("cal calorie", "4.184", energy),
        ("W watt", "1", power),
        ("hp horsepower", "745.69987158227022", power),
        ("Pa pascal", "1", pressure),
        ("atm", "101325", pressure),
        ("bar", "100000", pressure),
        ("C coulomb", "1", charge),
        ("A amp ampere", "1", (("current", 1),)),
        ("V volt", "1", voltage),
        ("Ω ohm", "1", resistance),
        ("T tesla", "1", field),
        ("G gauss", "0.0001", field),
        ("Wb weber", "1", flux),
        ("F farad", "1", capacitance),
        ("H henry", "1", inductance),
        ("Hz hertz", "1", (("time", -1),)),
        ("K kelvin", "1", (("temperature", 1),)),
        ("°C celsius", "1", (("celsius", 1),)),
        ("°F fahrenheit", "1", (("fahrenheit", 1),)),
        ("mol mole", "1", (("amount", 1),)),
        ("M molar", "1000", (("amount", 1), ("length", -3))),
        ("dB decibel", "1", (("decibel", 1),)),
        ("rpm", "1/60", (("time", -1),)),
    ]
    table = {}
    for spellings, scale, dimension in rows:
        for spelling in spellings.split():
            table[spelling] = (Fraction(scale), dimension)
    prefixes = {"k": 3, "M": 6, "G": 9, "T": 12, "c": -2, "m": -3, "μ": -6, "n": -9, "p": -12, "f": -15, "d": -1}
    words = {"kilo": 3, "mega": 6, "giga": 9, "centi": -2, "milli": -3, "micro": -6, "nano": -9, "deci": -1}
    for unit in ("m", "g", "s", "L", "l", "J", "W", "V", "A", "N", "Pa", "Hz", "eV", "Ω", "F", "C", "K", "T", "H"):
        size, dimension = table[unit]
        for prefix, exponent in prefixes.items():
            table.setdefault(prefix + unit, (size * Fraction(10) ** exponent, dimension))
    for unit in ("mol", "M", "cal", "pc", "G", "bar"):
        for prefix in ("k", "M", "m", "μ", "n"):
            table.setdefault(prefix + unit, (table[unit][0] * Fraction(10) ** prefixes[prefix], table[unit][1]))
    for (
        unit
    ) in "meter metre gram liter litre second joule watt volt amp ampere newton pascal hertz ohm calorie".split():
        for prefix, exponent in words.items():
            table[prefix + unit] = (table[unit][0] * Fraction(10) ** exponent, table[unit][1])
    return table


UNITS = _table()
MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "quadrillion": 15}
COUNTS = {"dozen": 12, "score": 20, "gross": 144, "pair": 2}
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = {word: n for n, word in enumerate(_SMALL)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}


def singular(word: str) -> str:
    if word in ("lens", "gas", "axis", "basis", "is", "yes", "plus", "minus"):
        return word
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def unit_of(word: str) -> tuple[Fraction, Dimension] | None:
    """Returns the scale and the dimension of a unit's name or symbol; None for other words."""
    for spelling in (word, word.lower() if len(word) > 2 else word):
        for form in (
            spelling,
            singular(spelling),
            spelling[:-1] if len(spelling) == 3 and spelling[-1] == "s" else spelling,
        ):
            if form in UNITS:
                return UNITS[form]
    return None


def number_word(words: list[str]) -> Fraction | None:
    """Returns the value of a number in words (twenty-one, three hundred and five), or None."""
    parts = [p for word in words for p in word.lower().split("-") if p]
    sign = -1 if parts[:1] in (["negative"], ["minus"]) else 1
    parts = parts[sign < 0 :]
    if not parts or parts[0] == "and" or parts[-1] == "and":
        return None
    total, current, last = 0, 0, None
    for part in parts:
        if part in NUMBER_WORDS:
            value = NUMBER_WORDS[part]
            if last is not None and not (last >= 20 > value > 0 and value < 10 or last >= 100):
                return None
            current, last = current + value, value
        elif part == "hundred" and current:
            current, last = current * 100, 100
        elif part in MAGNITUDES and current:
            total, current, last = total + current * 10 ** MAGNITUDES[part], 0, 1000
        elif part != "and":
            return None
    return sign * Fraction(total + current)
