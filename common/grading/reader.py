r"""Reads an answer, in LaTeX, plain text or a mixture, into a tree. No text is evaluated; what does not fit is refused.

The grammar, after styles (\mathbf, \color, \left, \displaystyle ...) and delimiters ($, \[, \() have been dropped:

    answer     = item { separator item }                 separator: , ; and or \\
    item       = [lead-in] statement [unit] [remark]     lead-in: "The area is", "Area:", \therefore, =, \approx
                                                         remark: "for all n \ge 1", \pmod{7}
    statement  = set { relation set }                    relation: = < > \le \ge \ne \in \approx \equiv and a ratio's :
    set        = sum { (\cup | \cap | \setminus) sum }
    sum        = [sign] product { sign product }         sign: + - \pm \mp
    product    = power { [* | / | nothing] power }       1\frac12 and 1 1/2 are mixed numbers
    power      = primary { ^ script | ! | ' | % | ^\circ }
    primary    = number | name | function argument | \frac | \sqrt | \binom | \sum | matrix | | answer | | ( answer )
               | interval or tuple | \{ answer \} | \{ name \mid answer \}

The tree is made of tuples whose first element names the node:

    num Fraction | sym name | const pi/e/i/inf | add (terms) | neg t | mul (factors) | div a b | pow a b | pm t | mp t
    call function (arguments) | app name (arguments) | sum/prod name low high body | deg t | pct t | mat (rows)
    tuple opening closing (items) | set (items) | builder t (conditions) | list (items) (separators)
    union a b | inter a b | minus a b | rel (sides) (relations) | text (words) | qty t scale dimension
    ratio (items) | time hour minute half | mod t modulus | base digits base

Letters keep their case. Letters in upright type (\text, \mathrm) or words in plain text are words, and a word after a value
is its unit; a letter in italics is a variable, so that 2s is twice s (`loose` also reads "3 m" and "3 m/s" as lengths and
speeds, for answers to a question whose answer is a number).
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

from common.grading.units import COUNTS, MAGNITUDES, number_word, singular, unit_of

MAX_LENGTH = 4000  # characters; what is longer is compared by its spelling
MAX_EXPONENT = 5000  # of ten, in 1e5000


class Unreadable(ValueError):
    """The text does not fit the grammar."""


# ---------------------------------------------------------------- characters

SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣᵗ", "0123456789+-()nixt", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙᵢₓ", "0123456789+-nix", strict=True))
GREEK = {
    unicodedata.lookup(f"GREEK {case} LETTER {name.upper()}"): rf"\{name if case == 'SMALL' else name.title()} "
    for case in ("SMALL", "CAPITAL")
    for name in "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi pi rho sigma tau phi chi psi omega".split()
} | {"λ": r"\lambda ", "Λ": r"\Lambda ", "ϵ": r"\epsilon ", "ϕ": r"\phi ", "υ": r"\upsilon ", "µ": r"\mu "}
CHARACTERS = GREEK | {
    **dict.fromkeys("−–—‐‑", "-"),
    **dict.fromkeys("·⋅•∙", r"\cdot "),
    **dict.fromkeys("′’ʹ", "'"),
    "″": "''",
    **dict.fromkeys("≤⩽", r"\le "),
    **dict.fromkeys("≥⩾", r"\ge "),
    **{"×": r"\times ", "÷": "/", "∕": "/", "⁄": "/", "∞": r"\infty ", "√": r"\sqrt ", "∛": r"\sqrt[3]", "≠": r"\ne "},
    **{"≈": r"\approx ", "≃": r"\approx ", "≅": r"\approx ", "≡": r"\equiv ", "∪": r"\cup ", "∩": r"\cap "},
    **{"∅": r"\emptyset ", "Ø": r"\emptyset ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "∴": r"\therefore "},
    **{"→": r"\to ", "⇒": r"\therefore ", "⟹": r"\therefore ", "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle "},
    **{
        "〉": r"\rangle ",
        "ℝ": r"\mathbb{R}",
        "ℤ": r"\mathbb{Z}",
        "ℕ": r"\mathbb{N}",
        "ℚ": r"\mathbb{Q}",
        "∣": r"\mid ",
    },
    **{"…": r"\ldots ", "⋯": r"\ldots ", "°": r"^\circ ", "º": r"^\circ ", "℃": r"^\circ C", "℉": r"^\circ F"},
    **{"∠": r"\angle ", "△": r"\triangle ", "∖": r"\setminus ", "∀": r"\forall ", "∂": r"\partial ", "∑": r"\sum "},
    **{"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "ℏ": r"\hbar ", "“": " ", "”": " "},
    **{"€": r"\text{EUR}", "£": r"\text{GBP}", "¥": r"\text{yen}", "₹": r"\text{rupee}", "¢": r"\text{cent}"},
    **{"Å": r"\AA ", "Å": r"\AA ", "Ω": r"\Omega ", "\u200b": "", "\u200e": "", "\u200f": "", "\u202f": " "},
}
SCRIPTS = re.compile(f"([{''.join(SUPERSCRIPTS)}]+)|([{''.join(SUBSCRIPTS)}]+)")
ASCII_FORMS = [
    ("+/-", r"\pm "),
    ("+-", r"\pm "),
    ("<=", r"\le "),
    (">=", r"\ge "),
    ("!=", r"\ne "),
    ("**", "^"),
    ("->", r"\to "),
]


def characters(text: str) -> str:
    """Returns the text with Unicode's mathematical characters written in LaTeX."""
    if not text.isascii():
        text = "".join(CHARACTERS.get(c, c) for c in text)
        text = re.sub(r"(\d)(?=[½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒])", r"\1 ", text)
        text = SCRIPTS.sub(
            lambda found: (
                "^{" + "".join(SUPERSCRIPTS[c] for c in found[1]) + "}"
                if found[1]
                else "_{" + "".join(SUBSCRIPTS[c] for c in found[2]) + "}"
            ),
            text,
        )
        text = unicodedata.normalize("NFKC", text)  # full-width and mathematical letters, ½ as 1⁄2
        text = re.sub(r"(\d+)⁄(\d+)", r"\\frac{\1}{\2}", text)
        text = "".join(CHARACTERS.get(c, c) for c in text)
    if (missing := len(re.findall(r"(?<!\\)\{", text)) - len(re.findall(r"(?<!\\)\}", text))) in (1, 2):
        text += "}" * missing  # a text that was cut off
    if "\\\\" in text and r"\begin" not in text:
        text = re.sub(r"\\\\(?=[A-Za-z]{2})", r"\\", text)  # backslashes that were escaped twice
    for plain, latex in ASCII_FORMS:
        text = text.replace(plain, latex)
    return text


# ---------------------------------------------------------------- tokens

STYLES = set(
    "mathbf boldsymbol bm bf mathit it mathsf sf mathtt tt bold pmb displaystyle textstyle scriptstyle large Large LARGE huge"
    " Huge small tiny normalsize footnotesize limits nolimits left right bigl bigr Bigl Bigr biggl biggr Biggl Biggr big Big"
    " bigg Bigg middle boxed fbox underline uline ensuremath mathstrut strut centering bigm mathopen mathclose mathord"
    " mathrel mathbin smash mathnormal enclose underbrace".split()
)
TEXT = set("text textrm textbf textit textnormal textsf texttt textsc textup mbox hbox emph textsl".split())
UPRIGHT = {"mathrm", "rm", "operatorname", "operatorname*", "mathop", "up", "unit", "si"}
SKIPPED_ARGUMENT = {
    "phantom",
    "hphantom",
    "vphantom",
    "hspace",
    "vspace",
    "tag",
    "label",
    "color",
    "textcolor",
    "hspace*",
}
SPACES = {
    ",",
    ";",
    ":",
    " ",
    ">",
    "!",
    "quad",
    "qquad",
    "thinspace",
    "medspace",
    "enspace",
    "hfill",
    "space",
    "\n",
    "nobreak",
}
ACCENTS = {"hat", "widehat", "bar", "overline", "tilde", "widetilde", "vec", "overrightarrow", "dot", "ddot", "overarc"}
SYNONYMS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("leq", "leqslant", "leqq"), "le"),
    **dict.fromkeys(("geq", "geqslant", "geqq"), "ge"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("varnothing", "O"), "emptyset"),
    **dict.fromkeys(("vert", "lvert", "rvert"), "|"),
    **dict.fromkeys(("lbrace",), "{"),
    **dict.fromkeys(("rbrace",), "}"),
    **dict.fromkeys(("sim", "simeq", "thickapprox", "cong", "doteq"), "approx"),
    **dict.fromkeys(("cdotp", "bullet", "ast", "star", "times"), "cdot"),
    **dict.fromkeys(("dots", "cdots", "dotsc", "dotsb", "dotso"), "ldots"),
    **dict.fromkeys(("because", "implies", "Rightarrow", "Longrightarrow", "so"), "therefore"),
    **{"neq": "ne", "lt": "<", "gt": ">", "varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta", "to": "to"},
    **{"rightarrow": "to", "div": "/", "colon": ":", "backslash": "setminus", "bigcup": "cup", "bigcap": "cap"},
    **{
        "dag": "dagger",
        "degree": "circ",
        "textdegree": "circ",
        "infin": "infty",
        "Reals": "R",
        "lor": "or",
        "vee": "or",
    },
    **{"land": "and", "wedge": "and", "ang": "angle", "measuredangle": "angle", "thinspace": ",", "lbrack": "["},
    **{"rbrack": "]", "euro": "text EUR", "pounds": "text GBP", "textdollar": "$", "dollar": "$"},
    **{"celsius": "text °C", "ohm": "text Ω", "AA": "text Å", "mu": "mu", "textmu": "mu"},
}
TIME_DOT = re.compile(r"^[ap]\.m\.?$", re.I)
DIGITS = re.compile(
    r"(?P<grouped>\d{1,3}(?:(?:,(?:\\!\s*)+|\{,\}(?:\\!)?\s*)\d{3})+(?!\d)(?:\.\d+)?)"  # 10,\!080  10{,}080
    r"|(?P<spaced>\d{1,3}(?:(?:\\,|\\ |~|\\;|\\:| )\d{3})+(?![\d/])(?:\.\d+)?)"  # 5 000 000
    r"|(?P<comma>\d{1,3}(?:,\d{3})+(?!\d)(?!,\d)(?:\.\d+)?)"  # 1,234, or a list
    r"|(?P<repeating>\d*\.\d*(?:\\overline|\\bar|\\dot)\s*(?:\{\s*\d+\s*\}|\d)(?:\d*\\dot\s*\{?\d\}?)?|\d+\.\(\d+\))"
    r"|(?P<science>(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+(?![A-Za-z\d]))"
    r"|(?P<plain>\d+\.\d+|\.\d+|\d+\.?(?!\d))"
)
COMMAND = re.compile(r"\\([A-Za-z]+\*?|.)", re.DOTALL)
LETTERS = re.compile(r"[A-Za-z]+")
WORD = re.compile(r"[A-Za-z]\.[A-Za-z]\.(?:[A-Za-z]\.)?|[^\W\d_]+(?:[-'][^\W\d_]+)*")
ABBREVIATIONS = set("sq cu in ft lb lbs oz min sec hr hrs yd mi cm approx".split())
FUNCTIONS = set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch arcsinh arccosh arctanh"
    " arsinh arcosh artanh ln log lg exp gcd lcm max min det sgn sign Re Im abs floor ceil cosec sqrt cbrt".split()
)
FUNCTION_SYNONYMS = {
    **{
        "asin": "arcsin",
        "acos": "arccos",
        "atan": "arctan",
        "arsinh": "arcsinh",
        "arcosh": "arccosh",
        "artanh": "arctanh",
    },
    **{"asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "tg": "tan", "ctg": "cot", "arctg": "arctan"},
    **{"cosec": "csc", "sgn": "sign", "sh": "sinh", "ch": "cosh", "arcctg": "arccot"},
}
PLAIN_FUNCTIONS = FUNCTIONS | {"asin", "acos", "atan", "asinh", "acosh", "atanh", "binom", "choose"}
GREEK_NAMES = set(re.findall(r"[A-Za-z]+", " ".join(GREEK.values())))
PLAIN_NAMES = GREEK_NAMES | {"infty", "infinity", "inf", "oo"}
CONNECTIVES = {"and", "or"}
SHORT_WORDS = set(
    "a an the is are be of in to or and for all any no yes not so we at as by on it if per sq cu mod pm am each one two six"
    " ten cm mm km kg ft lb oz hr hrs gal sec mph kph rad deg eV keV MeV GeV Hz kHz MHz GHz kPa lbs kpc Mpc USD EUR GBP usd"
    " erg ergs atm".split()
)
UNIT_WORDS = {word for word in SHORT_WORDS if unit_of(word)}
AMBIGUOUS = set(  # also products of variables: words only between spaces, outside braces
    "a an be of in to no so we at as by on it if am pm is rad".split()
)


def is_word(run: str, spaced: bool, after_number: bool) -> bool:
    """Says whether letters in plain text are a word rather than a product of variables."""
    if run in UNIT_WORDS:
        return after_number
    if run in SHORT_WORDS:
        return len(run) > 1 and (spaced or run not in AMBIGUOUS)
    lower = run.lower()
    if len(run) < 3 or not (run[1:].islower() or run.isupper()) or not set(lower) & set("aeiouy"):
        return False
    letters = sorted(lower)
    if all(ord(b) - ord(a) in (0, 1) for a, b in zip(letters, letters[1:], strict=False)):  # abc, zyx
        return False
    return not run.isupper() and (spaced or len(run) > 4 or run[0].isupper() and len(run) > 3)


class Token(tuple):
    """A token (kind, value) and whether a space stands before it."""

    __slots__ = ()

    def __new__(cls, kind: str, value="", spaced: bool = False):
        return tuple.__new__(cls, (kind, value, spaced))

    kind = property(lambda self: self[0])
    value = property(lambda self: self[1])
    spaced = property(lambda self: self[2])


def group_end(text: str, start: int) -> int:
    """Returns the position after the brace that closes the one at `start`."""
    depth, i = 0, start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i + 1
        i += 1
    raise Unreadable("a brace is not closed")


def as_list(digits: str) -> bool:
    """Says whether three-digit groups, as in 100,200, look like a list rather than one number: round or successive."""
    groups = digits.split(",")
    if any(len(g) != 3 or g[0] == "0" for g in groups):
        return False
    values = [int(g) for g in groups]
    steps = {b - a for a, b in zip(values, values[1:], strict=False)}
    return all(v % 50 == 0 for v in values) or len(steps) == 1 and (len(values) > 2 or 0 < abs(min(steps)) <= 10)


class Lexer:
    """Splits a text into tokens; `commas` says how 1,234 is read: "auto", "list" or "number"."""

    def __init__(self, text: str, commas: str):
        self.tokens: list[Token] = []
        self.commas = commas
        self.braces = 0  # that are open
        self.depth = 0  # of round and square brackets and set braces, within which a comma separates
        self.scan(text, upright=False)

    def add(self, kind: str, value="", spaced: bool = False) -> None:
        self.tokens.append(Token(kind, value, spaced))

    def scan(self, text: str, upright: bool, words: bool = False) -> None:
        """Adds the tokens of a text; `upright` for \\mathrm and \\text, `words` for \\text alone."""
        i, spaced = 0, bool(self.tokens) and words
        n, style = len(text), False
        while i < n:
            c = text[i]
            if c in " \t\n\r~\u00a0":
                i, spaced = i + 1, True
                continue
            before, spaced = spaced, False
            styled, style = style, False
            if (
                c.isdigit()
                or c == "."
                and text[i + 1 : i + 2].isdigit()
                or text.startswith((r".\overline", r".\dot", r".\bar"), i)
            ):
                i = self.number(text, i, before)
            elif c == "\\":
                found = COMMAND.match(text, i)
                if not found:
                    raise Unreadable("a backslash at the end")
                i = found.end()
                if found[1] in SPACES:
                    spaced = before or found[1] != "!"
                else:
                    style = found[1] in STYLES
                    i = self.command(found[1].rstrip("*") if found[1] != "*" else "*", text, i, before, upright, words)
            elif c.isalpha():
                if upright or words:
                    found = WORD.match(text, i)
                    word = found[0]
                    i = found.end()
                    single = len(word) == 1 and not words
                    if word in ("e", "i", "d") and single:
                        self.add("run", word, before)
                    elif (
                        word.replace(".", "") in PLAIN_FUNCTIONS - {"floor", "max", "min", "sign", "abs"} and not words
                    ):
                        self.add("run", word, before)
                    else:
                        if text[i : i + 1] == "." and word.lower() in ABBREVIATIONS:
                            i += 1
                        self.add("word", word.replace(".", ""), before)
                else:
                    found = LETTERS.match(text, i)
                    if not found:
                        raise Unreadable(f"the letter {c}")
                    run, i = found[0], found.end()
                    if run == "np" and text[i : i + 1] == ".":
                        i += 1
                        continue
                    if TIME_DOT.match(text[i - len(run) : i + 3].strip()):  # a.m. p.m.
                        self.add("word", run + "m", before)
                        i += 3 if text[i + 2 : i + 3] == "." else 2
                        continue
                    if (
                        run == "x"
                        and before
                        and text[i : i + 1] == " "
                        and self.tokens
                        and self.tokens[-1].kind == "num"
                    ):
                        if re.match(r"\s*10\s*\^", text[i:]):
                            self.add("*", "", before)
                            continue
                    neighbours = self.braces == 0 and text[i : i + 1] in ("", " ", ",", ".", ":", "/", "\n", "$", "^")
                    last = self.tokens[-1].kind if self.tokens else ""
                    neighbours = neighbours and (before or last in ("", "/", ",", "*", "(", ":", "="))
                    if run in ("AM", "PM", "am", "pm") and (
                        before or self.tokens[-2:-1] and self.tokens[-2].kind == ":"
                    ):
                        self.add("word", run.lower(), before)
                        continue
                    after_number = self.braces == 0 and last in ("num", "word", "/", "*", "}", "(", ")", "%")
                    article = run in ("a", "A") and re.match(r"\s[a-z]{3}", text[i:])
                    kind = (
                        "word"
                        if article
                        or is_word(run, neighbours, after_number)
                        and run not in PLAIN_FUNCTIONS | PLAIN_NAMES
                        else "run"
                    )
                    self.add(kind, run, before)
            elif c == "$":
                i, spaced = i + 1, before
            elif c == "%":
                self.add("%", "", before)
                i += 1
            elif c in "{}":
                if c == "{" and not styled:
                    self.braces += 1
                elif c == "}" and self.braces:
                    self.braces -= 1
                self.add(c, "", before)
                i += 1
            elif c in "([":
                self.depth += 1
                self.add(c, "", before)
                i += 1
            elif c in ")]":
                self.depth -= 1
                self.add(c, "", before)
                i += 1
            elif text.startswith("...", i):
                self.add("cmd", "ldots", before)
                i += 3
            elif c in "+-*/^_=<>,;:!|&'.?\"`":
                self.add({"`": "'", '"': "''"}.get(c, c), "", before)
                i += 1
            else:
                raise Unreadable(f"the character {c!r}")

    def number(self, text: str, i: int, spaced: bool) -> int:
        found = DIGITS.match(text, i)
        if not found:
            raise Unreadable("digits of another script")
        digits, kind = found[0], found.lastgroup
        if kind == "comma":
            listed = self.depth > 0 or self.commas == "list" or self.commas == "auto" and as_list(digits.split(".")[0])
            if listed:
                digits, kind = re.match(r"\d+", digits)[0], "plain"
        if kind == "spaced" and text[i + len(digits) : i + len(digits) + 1] == ",":
            digits, kind = re.match(r"\d+", digits)[0], "plain"
        end = i + len(digits)
        if len(digits) > 3000:
            raise Unreadable("more digits than are compared")
        if kind == "repeating":
            value = repeating(digits)
        elif kind == "science":
            mantissa, exponent = re.split("[eE]", digits)
            if len(exponent) > 5 or abs(int(exponent)) > MAX_EXPONENT:
                raise Unreadable("a huge exponent")
            value = Fraction(mantissa.removesuffix(".")) * Fraction(10) ** int(exponent)
        else:
            plain = re.sub(r"[^\d.]", "", digits)
            if kind == "plain" and text.startswith(("...", r"\ldots", r"\dots", "…", r"\cdots"), end):
                if period := re.fullmatch(r"(\d*)\.(\d*?)(\d{1,3}?)\3\3+", plain) or re.fullmatch(
                    r"(\d*)\.()(\d{2,6}?)\3", plain
                ):
                    value = repeating(f"{period[1]}.{period[2]}\\overline{{{period[3]}}}")
                    end = re.compile(r"(?:\.\.\.|\\[lc]?dots)").match(text, end).end()
                    self.tokens.append(Token("num", (value, digits), spaced))
                    return end
            if plain.endswith(".") and not text[end:].strip():
                plain = plain[:-1]
            value = Fraction(plain.removesuffix(".") or "0")
        self.tokens.append(Token("num", (value, digits), spaced))
        return end

    def command(self, name: str, text: str, i: int, spaced: bool, upright: bool, words: bool) -> int:
        """Adds the tokens of a command whose name ends before position i; returns where to go on."""
        name = SYNONYMS.get(name, name)
        if name.startswith("text "):
            self.add("word", name[5:], spaced)
        elif name in ("(", ")", "[", "]") and text[i - 2 : i] == "\\" + name:
            pass  # \( \[ around mathematics
        elif name in STYLES:
            if name in ("left", "right", "middle") and text[i : i + 1] == ".":
                i += 1
            if name in ("left", "right") and re.match(r"\s*[<>]", text[i:]):
                i = re.compile(r"\s*[<>]").match(text, i).end()
                self.add("langle" if name == "left" else "rangle", "", spaced)
            elif name in ("left", "right") and re.match(r"\s*(?:\||\\[lr]?vert)", text[i:]):
                i = re.compile(r"\s*(?:\||\\[lr]?vert)").match(text, i).end()
                self.add("open|" if name == "left" else "close|", "", spaced)
            elif name in ("mathbf", "boldsymbol", "bm") and (
                found := re.compile(r"\s*\{\s*([ijk])\s*\}").match(text, i)
            ):
                self.add("sym", found[1] + "̂", spaced)
                i = found.end()
        elif name in SKIPPED_ARGUMENT:
            found = re.compile(r"\s*\{").match(text, i)
            if found:
                i = group_end(text, found.end() - 1)
            elif name == "color":
                i = re.compile(r"\s*[A-Za-z]*").match(text, i).end()
        elif name in TEXT or name in UPRIGHT:
            found = re.compile(r"\s*\{").match(text, i)
            if found:
                end = group_end(text, found.end() - 1)
                inner = text[found.end() : end - 1]
                if inner.strip() in PLAIN_FUNCTIONS - {"floor", "max", "min", "sign", "abs"}:
                    self.add("run", inner.strip(), spaced)
                    return end
                start = len(self.tokens)
                self.scan(inner, upright=True, words=name in TEXT)
                if len(self.tokens) > start and spaced:
                    first = self.tokens[start]
                    self.tokens[start] = Token(first.kind, first.value, True)
                i = end
            elif name not in ("rm", "up"):
                found = re.compile(r"\s*([A-Za-z])").match(text, i)
                if found:
                    self.add("word", found[1], spaced)
                    i = found.end()
        elif name == "mathbb" or name == "R":
            found = re.compile(r"\s*\{?\s*([A-Z])\s*\}?").match(text, i) if name == "mathbb" else None
            self.add("sym", "set " + (found[1] if found else "R"), spaced)
            i = found.end() if found else i
        elif name in ("mathcal", "mathscr", "mathfrak"):
            found = re.compile(r"\s*\{?\s*([A-Za-z])\s*\}?").match(text, i)
            if not found:
                raise Unreadable(name)
            self.add("sym", f"{name} {found[1]}", spaced)
            i = found.end()
        elif name in ("hat", "vec") and (
            found := re.compile(r"\s*\{?\s*(?:\\mathbf\s*)?\{?\\?([ijk])(?:math)?(?![A-Za-z])\}?\s*\}?").match(text, i)
        ):
            self.add("sym", found[1] + "̂", spaced)
            i = found.end()
        elif name in ACCENTS:
            i = self.accent(name, text, i, spaced)
        elif name == "not":
            found = re.compile(r"\s*(=|\\in(?![a-z])|\\equiv(?![a-z]))").match(text, i)
            if not found or found[1] != "=":
                raise Unreadable("a relation that is negated")
            self.add("cmd", "ne", spaced)
            i = found.end()
        elif name in ("{", "}"):
            self.depth += 1 if name == "{" else -1
            self.add("\\" + name, "", spaced)
        elif name in ("langle", "rangle", "lfloor", "rfloor", "lceil", "rceil"):
            self.depth += 1 if name[0] == "l" else -1
            self.add(name, "", spaced)
        elif name in ("begin", "end"):
            found = re.compile(r"\s*\{([a-zA-Z]+)\*?\}").match(text, i)
            if not found:
                raise Unreadable(name)
            i = found.end()
            if "matrix" in found[1] or found[1] in ("array", "cases"):
                if found[1] == "array" and name == "begin" and (columns := re.compile(r"\s*\{[^{}]*\}").match(text, i)):
                    i = columns.end()
                self.depth += 1 if name == "begin" else -1
                self.add(name, found[1], spaced)
        elif name in ("%", "$"):
            self.add(name, "", spaced)
        elif name in ("<", ">", "/", ":", "|", "[", "]"):
            self.add(name, "", spaced)
        elif name == "cdot":
            self.add("*", "", spaced)
        elif name == "prime":
            self.add("'", "", spaced)
        elif name in CONNECTIVES:
            self.add("word", name, spaced)
        elif name in ("imath", "jmath"):
            self.add("run", name[0], spaced)
        elif name in ("pmod", "mod", "bmod", "pod"):
            self.add("word", "mod", spaced)
            if name in ("pmod", "pod"):
                found = re.compile(r"\s*\{").match(text, i)
                if found:
                    end = group_end(text, found.end() - 1)
                    self.scan(text[found.end() : end - 1], upright=False)
                    i = end
        elif name == "unit" or name == "#":
            raise Unreadable(name)
        else:
            self.add("cmd", name, spaced)
        return i

    def accent(self, name: str, text: str, i: int, spaced: bool) -> int:
        """An accent makes another name of a letter; an arrow is a style; dots are derivatives by time."""
        found = re.compile(r"\s*(?:\{\s*(\\?[A-Za-z]+(?:_\{?\w+\}?)?)\s*\}|(\\[A-Za-z]+|[A-Za-z]))").match(text, i)
        if not found:
            raise Unreadable(f"\\{name} over something else than a name")
        inner = found[1] or found[2]
        if name in ("vec", "overrightarrow"):
            self.scan(inner, upright=False)
            return found.end()
        base, _, subscript = inner.partition("_")
        subscript = "_" + subscript.strip("{}") if subscript else ""
        base = base.lstrip("\\")
        mark = {"dot": "'|t", "ddot": "''|t", "overline": "bar", "widehat": "hat", "widetilde": "tilde"}.get(name, name)
        self.add("sym", f"{base}{subscript}{mark}" if mark[0] == "'" else f"{mark} {base}{subscript}", spaced)
        return found.end()


def repeating(digits: str) -> Fraction:
    r"""Returns the value of 0.1\overline{6}, .\bar 3, 0.\dot{1}4\dot{2}, 0.(3)."""
    whole, _, rest = digits.partition(".")
    found = re.match(
        r"(\d*)(?:\\(?:overline|bar)\s*\{?\s*(\d+)|\\dot\s*\{?(\d+)\}?(?:(\d*)\\dot\s*\{?(\d))?|\((\d+)\))", rest
    )
    if not found:
        raise Unreadable(digits)
    fixed = (whole or "0") + found[1]
    period = found[2] or found[6] or found[3] + (found[4] or "") + (found[5] or "")
    return Fraction(int(fixed + period) - int(fixed), 10 ** len(found[1]) * (10 ** len(period) - 1))


# ---------------------------------------------------------------- the tree

RELATIONS = {"=", "<", ">", "le", "ge", "ne", "approx", "equiv", "in"}
SEPARATORS = {",", ";", "\\\\"}
OPENING = {"(", "[", "\\{", "langle", "lfloor", "lceil", "open|"}
CLOSING = {")", "]", "\\}", "rangle", "rfloor", "rceil", "close|", "}", "end", "&"}
LEAD_NOUNS = {"or", "base", "root", "roots", "minimum", "maximum", "remainder", "power"}  # the minimum is 5
LEAD_WORDS = set(  # words that may stand before a value without a colon or a verb
    "we get got have obtain either both the number numbers value values answer answers ratio final result total sum rs there"
    " is are then so thus hence therefore find equal equals pair pairs point points solution solutions roots".split()
)
LEAD_VERBS = {"is", "are", "equals", "be", "was", "has", "becomes"}
APPROXIMATE = {
    "about",
    "approximately",
    "roughly",
    "around",
    "approx",
    "exactly",
    "only",
    "precisely",
    "therefore",
    "thus",
    "so",
}
REMARKS = {"for", "where", "with", "here", "whenever", "since", "because", "as"}
MEANINGFUL = {  # words after a number that make it another one, or several
    *"or more less fewer least most choose squared cubed factorial times plus minus not over half halves third thirds fourth"
    " quarter quarters fifth fifths sixth sixths eighth eighths tenth tenths hundredth hundredths thousandth thousandths root"
    " roots to than greater above below under up down if unless except without modulo base th st nd rd negative positive point"
    " out either maximum minimum infinitely off remainder power lakh crore myriad digit double triple twice".split(),
    *MAGNITUDES,
    *COUNTS,
}
RADIANS, DEGREES = {"radian", "radians", "rad", "rads"}, {"degree", "degrees", "deg", "degs"}
ZERO, ONE = ("num", Fraction(0)), ("num", Fraction(1))


def outward_brackets(tokens: list[Token]) -> list[Token]:
    """Returns the tokens with ]2, 3[ written as (2, 3), and [2, 3[ as [2, 3)."""
    if len(tokens) > 2 and tokens[0].kind == "<" and tokens[-1].kind == ">":  # <1, 2>
        tokens = [Token("langle"), *tokens[1:-1], Token("rangle")]
    written, open_commas = list(tokens), []  # for each open bracket, whether a comma was seen within it
    for i, token in enumerate(tokens):
        following = tokens[i + 1] if i + 1 < len(tokens) else Token("cmd", "cup")
        if token.kind == "]" and not open_commas:
            written[i] = Token("(", "", token.spaced)
            open_commas.append(False)
        elif (
            token.kind == "["
            and open_commas
            and open_commas[-1]
            and (
                following.kind in (",", ";", "word", ".")
                or following.kind == "cmd"
                and following.value in ("cup", "cap", "setminus")
            )
        ):
            written[i] = Token(")", "", token.spaced)
            open_commas.pop()
        elif token.kind in ("(", "["):
            open_commas.append(False)
        elif token.kind in (")", "]") and open_commas:
            open_commas.pop()
        elif token.kind in (",", ";") and open_commas:
            open_commas[-1] = True
    return written


class Parser:
    """A recursive-descent parser of the grammar in the module's docstring."""

    def __init__(self, tokens: list[Token], loose: bool):
        self.tokens, self.i, self.loose = outward_brackets(tokens), 0, loose
        self.bars = 0  # vertical bars that are open
        self.matrices = 0  # that are open
        self.in_set = False  # \{x | ...\}: a bar separates

    # ------------------------------------------------ tokens

    def kind(self, ahead: int = 0) -> str:
        i = self.i + ahead
        if i >= len(self.tokens):
            return ""
        token = self.tokens[i]
        if token.kind == "cmd" and token.value in ("\\", "le", "ge", "ne", "approx", "equiv", "in", "newline"):
            return "\\\\" if token.value in ("\\", "newline") else token.value
        return token.kind

    def value(self, ahead: int = 0):
        i = self.i + ahead
        return self.tokens[i].value if i < len(self.tokens) else ""

    def word(self, ahead: int = 0) -> str:
        return self.value(ahead).lower() if self.kind(ahead) == "word" else ""

    def accept(self, kind: str, value=None) -> bool:
        if self.kind() == kind and (value is None or self.value() == value):
            self.i += 1
            return True
        return False

    def expect(self, kind: str) -> None:
        if not self.accept(kind):
            raise Unreadable(f"{kind} is missing")

    # ------------------------------------------------ answer, items

    def whole(self) -> tuple:
        node = self.answer()
        if self.i < len(self.tokens):
            raise Unreadable(f"{self.tokens[self.i].kind} is left over")
        return node

    def answer(self) -> tuple:
        """A list of items, or the one item."""
        items, separators = [], []
        while True:
            while self.separator():
                pass
            if not self.kind() or self.kind() in CLOSING or self.kind() == ".":
                break
            start = self.i
            item = self.item(first=not items)
            if self.i == start:
                raise Unreadable(f"{self.kind()} begins nothing")
            if item is not None:
                items.append(item)
            separator = self.separator()
            if not separator:
                break
            if item is not None:
                separators.append(separator)
        while self.accept("."):
            pass
        if not items:
            raise Unreadable("nothing")
        separators = separators[: len(items) - 1]
        if len(items) == 2 and separators == [","] and is_condition(items[1], items[0]):
            items = items[:1]
        if len(items) == 1:
            return items[0]
        if ";" in separators and "," in separators:
            return regroup(items, separators)
        return ("list", tuple(items), tuple(separators))

    def separator(self) -> str:
        kind, found = self.kind(), ""
        if kind in SEPARATORS:
            found = kind
        elif kind == "word" and self.value().lower() in CONNECTIVES | {"&"}:
            found = self.value().lower()
        elif kind == "run" and self.value() in CONNECTIVES:
            found = self.value()
        elif kind == "&" and not self.matrices:
            found = "and"
        elif kind == "cmd" and self.value() == "cup":
            found = "or"
        if found:
            self.i += 1
            if found in (",", ";", "\\\\") and (
                self.word() in CONNECTIVES or self.kind() == "run" and self.value() in CONNECTIVES
            ):
                return self.separator()
        return found

    def item(self, first: bool = True) -> tuple | None:
        """One item; None for a remark, such as k \\in \\mathbb{Z} after a comma."""
        while self.kind() in ("=", "approx", ":") or self.kind() == "cmd" and self.value() in ("therefore", "bullet"):
            self.i += 1
        if self.kind() == "cmd" and self.value() in ("max", "min") and self.kind(1) == "=":
            self.i += 2
        if self.kind() == "cmd" and self.value() == "forall" or self.word() in ("where", "for") and not first:
            self.skip_remark()
            return None
        self.lead_in()
        if self.kind() == "word" and not (
            self.word() in ("negative", "minus") and self.kind(1) in ("num", "cmd", "run")
        ):
            words = self.words()
            if words is not None:
                return words
        negative = self.word() in ("negative", "minus") and self.kind(1) in ("num", "cmd", "run")
        self.i += negative
        node = self.statement()
        node = self.tail(("neg", node) if negative else node)
        if (
            node[0] == "rel"
            and node[2] == ("in",)
            and not first
            and node[1][1] in (("sym", "set Z"), ("sym", "set N"), ("sym", "set R"))
        ):
            return None
        return node

    def item_end(self, i: int) -> int:
        """The position after the words and numbers of an item that starts at i."""
        depth = 0
        while i < len(self.tokens):
            kind = self.tokens[i].kind
            if kind in OPENING or kind == "{":
                depth += 1
            elif kind in CLOSING:
                depth -= 1
                if depth < 0:
                    break
            elif depth == 0 and (kind in SEPARATORS or kind == "word" and self.tokens[i].value.lower() in CONNECTIVES):
                break
            i += 1
        return i

    def lead_in(self) -> None:
        """Skips "The area is", "Area:", "approximately" before a value."""
        while self.word() in APPROXIMATE and self.kind(1):
            self.i += 1
        end = self.item_end(self.i)
        i = self.i
        while i < end and self.tokens[i].kind == "word":
            i += 1
        if i == self.i or i == end:
            return
        if self.tokens[i].kind in (":", "=") and i + 1 < end and self.kind() == "word":
            if not {w.value.lower() for w in self.tokens[self.i : i]} & {"not", "no"} and not self.choice(self.i, i):
                self.i = i + 1
        elif {w.value.lower() for w in self.tokens[self.i : i]} <= LEAD_WORDS:
            self.i = i
        elif self.tokens[i - 1].value.lower() in LEAD_VERBS | APPROXIMATE:
            if not {w.value.lower() for w in self.tokens[self.i : i]} & (MEANINGFUL - LEAD_NOUNS | {"no"}):
                self.i = i

    def choice(self, start: int, end: int) -> bool:
        return end - start == 1 and len(self.tokens[start].value) == 1

    def words(self) -> tuple | None:
        """An item of words: a number in words, a remark, a name; None where the words begin something else."""
        start, end = self.i, self.item_end(self.i)
        tokens = self.tokens[start:end]
        words = [t.value for t in tokens if t.kind == "word"]
        if all(t.kind == "word" for t in tokens):
            split = next((j for j in range(len(words), 0, -1) if number_word(words[:j]) is not None), 0)
            if split and (words[:1] != ["a"]):
                joined = words[:split]
                after = end
                while (
                    after + 1 < len(self.tokens)
                    and self.tokens[after].value == "and"
                    and split == len(words)
                    and any(m in [w.lower() for w in joined] for m in MAGNITUDES)
                ):  # three hundred and five
                    more = [t.value for t in self.tokens[after : self.item_end(after + 1)] if t.kind == "word"]
                    if number_word(joined + more) is None:
                        break
                    joined, after = joined + more, self.item_end(after + 1)
                self.i = start + split if after == end else after
                return self.tail(("num", number_word(joined)))
        if all(t.kind in ("word", "num", "run", "-", "'", ".", "?", "!", "/", ":") for t in tokens):
            unit = tokens[0].value in ("EUR", "GBP", "yen", "rupee", "USD") or tokens[0].value.lower() in (
                "mod",
                "radius",
            )
            if not unit and not (
                len(tokens) > 1 and tokens[1].kind in ("/", ":", "'", "-", "num") and len(tokens[0].value) == 1
            ):
                self.i = end
                spelled = [
                    str(t.value[1]) if t.kind == "num" else t.value if t.kind in ("word", "run") else t.kind
                    for t in tokens
                ]
                return ("text", tuple(w for w in spelled if w not in (".", "!")))
        return None

    def skip_remark(self) -> None:
        self.i = self.item_end(self.i)

    # ------------------------------------------------ units and remarks after a value

    def tail(self, node: tuple) -> tuple:
        """Reads what stands after a value: percent, degrees, a unit, a magnitude, a modulus, a base, a remark."""
        while True:
            word = self.word()
            if self.kind() == "word" and word == "mod" or self.kind() == "(" and self.word(1) == "mod":
                bracket = self.accept("(")
                self.i += 1
                inner = self.accept("(")
                modulus = self.sum()
                if inner:
                    self.expect(")")
                if bracket:
                    self.expect(")")
                node = ("mod", node, modulus)
            elif (
                self.kind() == "("
                and self.word(1) == "base"
                or word == "base"
                or word == "in"
                and self.word(1) == "base"
            ):
                bracket = self.accept("(") or word == "in" and self.accept("word") and False
                self.i += 1
                node = based(node, self.subscript())
                if bracket:
                    self.expect(")")
            elif word in MAGNITUDES or singular(word) in MAGNITUDES and node[0] == "num":
                self.i += 1
                node = (
                    "mul",
                    (node, ("num", Fraction(10) ** MAGNITUDES[word if word in MAGNITUDES else singular(word)])),
                )
            elif word in COUNTS or singular(word) in COUNTS:
                self.i += 1
                node = ("mul", (node, ("num", Fraction(COUNTS[word if word in COUNTS else singular(word)]))))
            elif word in ("percent", "pct") or word == "per" and self.word(1) == "cent":
                self.i += 1 + (word == "per")
                node = ("pct", node)
            elif word in DEGREES and self.word(1) not in ("celsius", "fahrenheit", "c", "f"):
                self.i += 1
                node = ("deg", node)
            elif word in DEGREES:
                self.i += 2
                node = ("qty", node, *unit_of("°" + self.tokens[self.i - 1].value[0].upper()))
            elif word in RADIANS:
                self.i += 1
                node = ("call", "rad", (node,))
            elif (
                word in ("a", "p")
                and self.word(1) == "m"
                or word in ("am", "pm", "noon", "midnight", "oclock", "o'clock")
            ):
                self.i += 1 + (word in ("a", "p"))
                node = clock(node, word)
            elif word in REMARKS or self.kind() == "cmd" and self.value() == "forall" or word == "(":
                self.skip_remark()
            elif self.kind() == "cmd" and self.value() == "%":
                self.i += 1
            elif word == "to" and node[0] in ("num", "ratio", "add", "mul", "div"):
                self.i += 1
                node = ("ratio", (*(node[1] if node[0] == "ratio" else (node,)), self.tail(self.sum())))
            elif self.kind() == "(" and self.kind(1) == "word":  # 5 (meters)
                end = self.item_end(self.i + 1)
                words = self.tokens[self.i + 1 : end]
                if all(t.kind == "word" for t in words) and not {t.value.lower() for t in words} & MEANINGFUL:
                    self.i += 1
                    node = self.tail(node)
                    self.expect(")")
                else:
                    return node
            elif (
                self.kind() == "cmd"
                and (self.value() != "frac" or self.kind(2) != "word")
                and self.value() not in ("mu", "Omega")
            ):
                return node
            else:
                unit = self.unit(numeric=literal(node))
                if unit is None:
                    return node
                node = ("qty", node, *unit)

    def unit(self, numeric: bool) -> tuple | None:
        """A unit, as (scale, dimension): words, upright symbols, products, quotients and powers of them."""
        start = self.i
        scale, dimension, divide, pending, found = Fraction(1), {}, 1, 1, False
        symbols = 0
        while True:
            kind, word = self.kind(), self.word()
            if found and kind == "/" or word == "per":
                divide, self.i = -1, self.i + 1
                continue
            if found and kind == "*":
                self.i += 1
                continue
            if found and kind == "(" and divide == -1:  # J/(kg K)
                self.i += 1
                inner = self.unit(numeric=True)
                if inner is None:
                    raise Unreadable("a unit in brackets")
                self.expect(")")
                scale /= inner[0]
                for base, power in inner[1]:
                    dimension[base] = dimension.get(base, 0) - power
                divide = 1
                continue
            if kind == "cmd" and self.value() == "frac" and self.kind(1) == "{":  # \frac{\text{km}}{\text{h}}
                self.i += 2
                parts = []
                for closing in ("}", "}"):
                    parts.append(self.unit(numeric=True))
                    self.expect(closing)
                    if len(parts) == 1:
                        self.expect("{")
                if None in parts:
                    raise Unreadable("a fraction of units")
                scale *= parts[0][0] / parts[1][0]
                for sign, part in zip((1, -1), parts, strict=True):
                    for base, power in part[1]:
                        dimension[base] = dimension.get(base, 0) + sign * power
                found = True
                continue
            if word in ("square", "sq", "cubic", "cu"):
                pending, self.i, found = 2 if word[0] == "s" else 3, self.i + 1, True
                continue
            if word in ("squared", "cubed"):
                if found or self.kind(1) != "word":
                    break
                pending, self.i, found = 2 if word[0] == "s" else 3, self.i + 1, True
                continue
            if kind == "deg" or kind == "^" and self.circle():
                name = self.temperature()
                if name is None:
                    break
            elif kind == "word" or kind == "cmd" and self.value() == "Omega" and (numeric and self.loose or found):
                if word in CONNECTIVES or word in (
                    "mod",
                    "for",
                    "base",
                    "where",
                    "am",
                    "pm",
                    "radians",
                    "degrees",
                    "percent",
                ):
                    break
                if word in MEANINGFUL or word in REMARKS and not found:
                    if found:
                        break
                    raise Unreadable(f"the word {word} changes the value")
                name = "Ω" if kind == "cmd" else self.value()
                self.i += 1
            elif (
                kind in ("run", "word")
                and self.value() in ("k", "M", "m")
                and (self.kind(1), self.value(1)) == ("cmd", "Omega")
            ):
                name = self.value() + "Ω"
                self.i += 2
            elif (
                kind == "cmd"
                and self.value() == "mu"
                and self.kind(1) in ("run", "word")
                and (self.loose or self.kind(1) == "word")
            ):
                name = "μ" + self.value(1)
                if unit_of(name) is None:
                    break
                self.i += 2
            elif (
                kind == "run"
                and (numeric and self.loose and self.tokens[self.i].spaced or found)
                and unit_of(self.value())
            ):
                name = self.value()
                symbols += 1
                self.i += 1
            else:
                break
            found = True
            power = 1
            if self.word() in ("squared", "cubed"):
                power = 2 if self.word() == "squared" else 3
                self.i += 1
            elif self.kind() == "^" and not self.circle():
                self.i += 1
                exponent = self.script()
                exponent = ("num", -exponent[1][1]) if exponent[0] == "neg" and exponent[1][0] == "num" else exponent
                if exponent[0] != "num" or exponent[1].denominator != 1 or abs(exponent[1]) > 9:
                    raise Unreadable("the power of a unit")
                power = int(exponent[1])
            power *= divide * pending
            divide, pending = 1, 1
            known = unit_of(name)
            if (
                known
                and len(name) == 1
                and kind == "word"
                and not numeric
                and not self.tokens[start].spaced
                and name.islower()
            ):
                pass
            if known:
                scale *= known[0] ** power
                for base, exponent in known[1]:
                    dimension[base] = dimension.get(base, 0) + exponent * power
            elif name.lower() not in (
                "of",
                "the",
                "a",
                "an",
                "them",
                "in",
                "total",
                "each",
                "long",
                "wide",
                "tall",
                "away",
                "old",
            ):
                noun = "noun " + singular(name.lower())
                if noun == "noun unit" or noun not in dimension:
                    dimension[noun] = dimension.get(noun, 0) + power
        if not found:
            self.i = start
            return None
        return scale, tuple(sorted((base, power) for base, power in dimension.items() if power))

    def circle(self) -> bool:
        """Whether a degree sign, ^\\circ or ^{\\circ}, comes next."""
        at = 2 if self.kind(1) == "{" else 1
        return self.kind() == "^" and self.kind(at) == "cmd" and self.value(at) == "circ"

    def skip_circle(self) -> None:
        self.i += 2
        if self.tokens[self.i - 1].kind == "{":
            self.i += 1
            self.expect("}")

    def temperature(self) -> str | None:
        """°C or °F, after which it stands; None for a plain degree sign."""
        at = 4 if self.kind(1) == "{" else 2
        if self.kind(1) == "{" and self.kind(3) in ("run", "word"):  # ^{\circ C}
            at = 3
        if self.kind(at) in ("run", "word") and self.value(at).lower() in ("c", "f", "celsius", "fahrenheit"):
            self.i += at + 1 + (at == 3)
            return "°" + self.tokens[self.i - 1 - (at == 3)].value[0].upper()
        return None

    # ------------------------------------------------ statements

    def statement(self) -> tuple:
        sides, relations = [self.ratio()], []
        while self.kind() in RELATIONS or self.kind() == "word" and self.word() in ("is", "equals"):
            relation = self.kind() if self.kind() != "word" else "="
            self.i += 1
            if relation == "in" and self.kind() == "word":
                raise Unreadable("in")
            while self.kind() in ("=", "approx"):  # ==, =\approx
                self.i += 1
            relations.append(relation)
            sides[-1] = self.inner_tail(sides[-1])
            sides.append(self.tail_of_side(self.ratio()))
        if not relations:
            return sides[0]
        return ("rel", tuple(sides), tuple(relations))

    def inner_tail(self, node: tuple) -> tuple:
        return node

    def tail_of_side(self, node: tuple) -> tuple:
        """A unit within a chain, x = 5 \\text{ cm} = 0.05 \\text{ m}, belongs to its side."""
        return self.tail(node) if self.kind() in ("word", "(", "^") else node

    def ratio(self) -> tuple:
        node = self.set_expression()
        if self.kind() != ":" or self.in_set:
            return node
        items = [node]
        while self.accept(":"):
            items.append(self.set_expression())
        clock_like = [t for t in items if t[0] == "num" and t[1].denominator == 1]
        if len(items) == 2 and len(clock_like) == 2 and self.tokens[self.i - 1].kind == "num":
            digits = self.tokens[self.i - 1].value[1]
            if len(digits) == 2 and 0 <= items[0][1] <= 24 and int(digits) < 60:
                return ("time", int(items[0][1]), int(digits), "")
        return ("ratio", tuple(items))

    def set_expression(self) -> tuple:
        node = self.sum()
        while (
            self.kind() == "cmd"
            and self.value() in ("cup", "cap", "setminus")
            and not self.relation_ahead()
            or self.kind() == "run"
            and self.value() == "U"
        ):
            if self.kind() == "run" and node[0] not in ("tuple", "set", "union"):
                break
            kind = {"cup": "union", "cap": "inter", "setminus": "minus", "U": "union"}[self.value()]
            self.i += 1
            node = (kind, node, self.sum())
        if self.kind() == "-" and node in (("sym", "set R"),):
            self.i += 1
            node = ("minus", node, self.sum())
        return node

    def relation_ahead(self) -> bool:
        """Whether \\cup stands between statements, x < 1 \\cup x > 2, rather than between sets."""
        depth, i = 0, self.i + 1
        while i < len(self.tokens):
            kind, value, _ = self.tokens[i]
            if kind in OPENING or kind == "{":
                depth += 1
            elif kind in CLOSING:
                depth -= 1
            if depth < 0 or depth == 0 and (kind in SEPARATORS or kind == "word" or (kind, value) == ("cmd", "cup")):
                return False
            if depth == 0 and (kind in RELATIONS or kind == "cmd" and value in RELATIONS):
                return True
            i += 1
        return False

    # ------------------------------------------------ expressions

    def sum(self) -> tuple:
        terms = []
        while True:
            sign = 1
            plus_minus = ""
            signs = 0
            while self.kind() in ("+", "-") or self.kind() == "cmd" and self.value() in ("pm", "mp"):
                if self.kind() == "cmd":
                    if plus_minus:
                        raise Unreadable("two plus-minus signs in a row")
                    plus_minus = self.value()
                elif self.kind() == "-":
                    sign = -sign
                self.i += 1
                signs += 1
            if terms and not signs:
                break
            if terms == [("sym", "set R")] and self.kind() == "\\{":  # the reals without a set
                self.i -= 1
                break
            if terms and not self.starts_primary():
                raise Unreadable("a sign at the end")
            term = self.product()
            if sign < 0:
                term = ("num", -term[1]) if term[0] == "num" and term[1] >= 0 and False else ("neg", term)
            if plus_minus:
                term = (plus_minus, term)
            terms.append(term)
        return terms[0] if len(terms) == 1 else ("add", tuple(terms))

    def starts_primary(self) -> bool:
        kind = self.kind()
        if kind == "run" and self.value() in CONNECTIVES:
            return False
        if kind in ("num", "run", "sym", "(", "[", "\\{", "langle", "lfloor", "lceil", "open|", "{", "begin", "$"):
            return True
        if kind == "|":
            return True
        return kind == "cmd" and self.value() not in (
            *(
                "cup",
                "cap",
                "setminus",
                "pm",
                "mp",
                "mid",
                "over",
                "choose",
                "circ",
                "to",
                "therefore",
                "forall",
                "exists",
            ),
        )

    def juxtaposed(self) -> bool:
        """Whether the next token continues a product without a sign."""
        kind = self.kind()
        if kind == "|":
            return not self.bars and not self.in_set
        if kind == "cmd" and self.value() == "ldots":
            return False
        if (
            kind == "cmd"
            and self.value() == "frac"
            and self.kind(1) == "{"
            and self.kind(2) == "word"
            and unit_of(self.value(2))
        ):
            return False
        if kind in ("[", "\\{", "langle"):
            return kind == "[" and self.bracket_group()
        if kind == "]":
            return False
        if kind == "run" and self.value() == "U" and self.kind(1) in ("(", "["):
            return False
        if kind == "(" and (
            self.word(1) in ("mod", "base", "since", "or") or self.kind(1) == "word" and len(self.value(1)) > 1
        ):
            return False
        if kind == "num":
            before = self.tokens[self.i - 1]
            return (
                before.kind not in ("num", "run", "sym")
                or before.kind == "run"
                and (self.tokens[self.i].spaced or self.kind(1) == "^" and len(before.value) == 1)
            )
        return self.starts_primary()

    def bracket_group(self) -> bool:
        """Whether a square bracket closes as one and holds no comma: a factor, not an interval."""
        depth = 0
        for token in self.tokens[self.i :]:
            if token.kind in ("(", "[", "\\{"):
                depth += 1
            elif token.kind in (")", "]", "\\}"):
                depth -= 1
                if depth == 0:
                    return token.kind == "]"
            elif token.kind == "," and depth == 1:
                return False
        return False

    def product(self) -> tuple:
        factors = []
        while True:
            greek = self.kind() == "cmd" and self.value() in ("Omega", "mu")
            if (
                (self.kind() == "run" or greek)
                and factors
                and self.loose
                and literal(product_of(factors))
                and self.unit_ahead()
            ):
                break
            if not factors or self.juxtaposed():
                start = self.i
                factor = self.power()
                factors.append(self.mixed(factor, start) if not factors else factor)
            elif self.kind() == "*":
                self.i += 1
                factors.append(self.signed_power())
            elif self.kind() == "/" and factors:
                self.i += 1
                denominator = self.signed_power(runs=True)
                factors = [("div", product_of(factors), denominator)]
            else:
                break
        if len(factors) > 1 and all(factor[0] == "tuple" for factor in factors):  # (1,2)(3,4) without commas
            return ("list", tuple(factors), (",",) * (len(factors) - 1))
        return product_of(factors)

    def signed_power(self, runs: bool = False) -> tuple:
        negative = False
        while self.kind() in ("+", "-"):
            negative ^= self.kind() == "-"
            self.i += 1
        node = self.power(whole_run=runs)
        return ("neg", node) if negative else node

    def unit_ahead(self) -> bool:
        """For loose reading: whether letters after a number, set off by a space, are a unit up to the item's end."""
        start = self.i
        if not self.tokens[start].spaced or self.value() in ("e", "i"):
            return False
        if self.kind() == "run" and unit_of(self.value()) is None and self.value(1) != "Omega":
            return False
        try:
            unit = self.unit(numeric=True)
            return unit is not None and (not self.kind() or self.kind() in SEPARATORS | CLOSING | {".", "word"})
        except Unreadable:
            return False
        finally:
            self.i = start

    def mixed(self, factor: tuple, start: int) -> tuple:
        r"""Joins 1\frac{4}{5} or 137 1/2, whose whole part is `factor`, into one number."""
        if factor[0] != "num" or factor[1].denominator != 1 or self.i != start + 1:
            return factor
        if "." in self.tokens[start].value[1]:
            return factor
        save, mixed = self.i, None
        if self.kind() == "cmd" and self.value() == "frac" and self.juxtaposed():
            fraction = self.primary()
            if self.kind() != "^" or self.circle():
                parts = [fraction[1], fraction[2]] if fraction[0] == "div" else []
                if (
                    all(p[0] == "num" and p[1].denominator == 1 for p in parts)
                    and parts
                    and 0 < parts[0][1] < parts[1][1]
                ):
                    mixed = ("num", factor[1] + parts[0][1] / parts[1][1])
        elif self.kind() == "num" and self.kind(1) == "/" and self.kind(2) == "num" and self.tokens[self.i].spaced:
            top, bottom = self.value()[0], self.value(2)[0]
            if top.denominator == bottom.denominator == 1 and 0 < top < bottom:
                self.i += 3
                mixed = ("num", factor[1] + top / bottom)
        if mixed is None:
            self.i = save
        return factor if mixed is None else self.postfix(mixed)

    def power(self, whole_run: bool = False) -> tuple:
        return self.postfix(self.primary(whole_run))

    def postfix(self, node: tuple) -> tuple:
        """What stands behind a value: exponents, factorials, primes, degrees, percent."""
        while True:
            kind = self.kind()
            if kind == "^" and self.circle():
                if self.temperature_ahead():
                    return node
                self.skip_circle()
                node = ("deg", node)
            elif kind == "^":
                self.i += 1
                if self.kind() == "'" or self.kind() == "{" and self.kind(1) == "'":
                    node = self.primes(node)
                    continue
                node = raised(node, self.script())
            elif kind == "cmd" and self.value() == "circ":
                self.i += 1
                node = ("deg", node)
            elif kind in ("'", "''"):
                node = self.primes(node)
            elif kind == "!":
                self.i += 1
                node = ("call", "factorial", (node,)) if not self.accept("!") else ("call", "factorial2", (node,))
            elif kind == "%":
                self.i += 1
                node = ("pct", node)
            elif kind == "_":
                self.i += 1
                node = based(node, self.subscript())
            else:
                return node

    def temperature_ahead(self) -> bool:
        start = self.i
        found = self.temperature()
        self.i = start
        return found is not None

    def primes(self, node: tuple) -> tuple:
        count, braced = 0, self.accept("{")
        while self.kind() in ("'", "''"):
            count += len(self.kind())
            self.i += 1
        if braced:
            self.expect("}")
        if node[0] == "pow" and node[1][0] == "sym":
            return ("pow", ("sym", node[1][1] + "'" * count), node[2])
        if node[0] != "sym":
            raise Unreadable("a prime after something else than a name")
        return self.call_of(("sym", node[1] + "'" * count))

    def script(self) -> tuple:
        """An exponent: a group, a number, a sign and a number, or one letter."""
        if self.accept("{"):
            node = self.sum()
            if self.kind() == ",":
                raise Unreadable("a list as an exponent")
            self.expect("}")
            return node
        if self.kind() in ("-", "+"):
            sign = self.kind()
            self.i += 1
            node = self.script()
            return ("neg", node) if sign == "-" else node
        if self.kind() == "*":
            self.i += 1
            return ("sym", "*")
        if self.kind() == "run":
            return self.letter()
        if self.kind() == "num":
            value, digits = self.value()
            self.i += 1
            return ("num", value)
        if self.kind() in ("(", "cmd", "sym"):
            return self.primary()
        if self.kind() == "word" and len(self.value()) == 1:
            self.i += 1
            return ("sym", self.tokens[self.i - 1].value)
        raise Unreadable("an exponent is missing")

    def letter(self) -> tuple:
        """The first letter of a run, the rest of which is put back (or a name such as pi as a whole)."""
        token = self.tokens[self.i]
        if token.value in PLAIN_NAMES:
            self.i += 1
            return named(token.value)
        if len(token.value) > 1:
            self.tokens[self.i : self.i + 1] = [
                Token("run", token.value[0], token.spaced),
                Token("run", token.value[1:], False),
            ]
        self.i += 1
        return named(self.tokens[self.i - 1].value)

    def subscript(self) -> str:
        """The text of a subscript, its spaces and braces dropped."""

        def spell(token: Token) -> str:
            if token.kind == "num":
                return token.value[1]
            if token.kind in ("cmd", "run", "word", "sym"):
                return token.value
            return token.kind

        if self.kind() == "{":
            depth, parts = 0, []
            while True:
                if self.i >= len(self.tokens):
                    raise Unreadable("a brace is not closed")
                token = self.tokens[self.i]
                depth += (token.kind == "{") - (token.kind == "}")
                self.i += 1
                if depth == 0:
                    text = "".join(parts).rstrip(".")
                    return text[1:-1] if text[:1] == "(" and text[-1:] == ")" else text
                if token.kind not in ("{", "}"):
                    parts.append(spell(token))
        if self.kind() == "run":
            self.letter()
            return self.tokens[self.i - 1].value
        if self.kind() in ("num", "word", "sym", "cmd"):
            self.i += 1
            return spell(self.tokens[self.i - 1]).rstrip(".")
        raise Unreadable("a subscript is missing")

    def primary(self, whole_run: bool = False) -> tuple:
        kind, value = self.kind(), self.value()
        if kind == "num":
            self.i += 1
            return ("num", value[0])
        if kind == "run":
            return self.run(whole_run)
        if kind == "sym":
            self.i += 1
            return self.call_of(self.indexed(("sym", value)))
        if kind == "$":  # money
            self.i += 1
            if not self.starts_primary() and self.kind() not in ("-", "+"):
                raise Unreadable("a dollar sign")
            return ("qty", self.product(), Fraction(1), (("money", 1),))
        if kind == "word":
            unit = unit_of(value)
            if value in ("EUR", "GBP", "yen", "rupee", "USD") and self.kind(1) == "num":
                self.i += 1
                return ("qty", self.product(), *unit)
            if len(value) == 1:
                self.i += 1
                return self.indexed(("sym", value))
            raise Unreadable(f"the word {value}")
        if kind == "cmd":
            return self.command(value)
        if kind == "{":
            return self.braced()
        if kind in ("(", "[", "langle", "<"):
            return self.bracketed()
        if kind == "\\{":
            return self.set()
        if kind in ("|", "open|"):
            return self.absolute()
        if kind in ("lfloor", "lceil"):
            self.i += 1
            node = self.sum()
            self.expect("r" + kind[1:])
            return ("call", "floor" if kind == "lfloor" else "ceil", (node,))
        if kind == "begin":
            return self.matrix()
        raise Unreadable(f"{kind or 'the end'} where a value should stand")

    def run(self, whole_run: bool) -> tuple:
        """Letters in italics: a function, a named letter, a variable, or their product."""
        value = self.value()
        if (
            re.fullmatch("d[A-Za-z]", value) and self.kind(1) == "/" and re.fullmatch("d[A-Za-z]", str(self.value(2)))
        ):  # dy/dx
            self.i += 3
            return ("sym", f"{value[1]}'|{self.tokens[self.i - 1].value[1]}")
        if value in PLAIN_FUNCTIONS and (len(value) > 2 or value in ("ln", "lg")):
            self.i += 1
            return self.function(value)
        if value in PLAIN_NAMES:
            self.i += 1
            return self.indexed(named(value))
        for name in sorted(PLAIN_FUNCTIONS, key=len, reverse=True):  # sinx, xsinx
            at = value.find(name)
            if (
                at in (0, 1)
                and len(name) > 1
                and len(value) - len(name) <= 2
                and (len(name) > 2 or name == "ln")
                and value != name
            ):
                pieces = [p for p in (value[:at], name, value[at + len(name) :]) if p]
                self.tokens[self.i : self.i + 1] = [Token("run", p, self.tokens[self.i].spaced) for p in pieces]
                return self.run(whole_run)
        if len(value) == 3 and value.endswith("pi"):
            self.tokens[self.i : self.i + 1] = [Token("run", value[0], False), Token("run", "pi", False)]
            return self.run(whole_run)
        if len(value) > 12:
            raise Unreadable(f"the word {value}")
        if len(value) == 1:
            self.i += 1
            return self.call_of(self.indexed(named(value)))
        if whole_run:  # the denominator of 1/RC
            self.i += 1
            letters = [named(c) for c in value[:-1]]
            self.tokens[self.i - 1] = Token("run", value[-1], False)
            self.i -= 1
            last = self.power()
            return product_of([*letters, last])
        return self.letter()

    def indexed(self, node: tuple) -> tuple:
        """A name with its subscript."""
        if self.kind() == "_" and node[0] in ("sym", "const"):
            self.i += 1
            name = node[1]
            if node == ("const", "e") or node == ("const", "i"):
                name = node[1]
            return ("sym", f"{name}_{self.subscript()}")
        return node

    def call_of(self, node: tuple) -> tuple:
        """A name with its arguments: f(x), x(t), S(101), I(0), C(n, 2); x(x+1) remains a product."""
        if (
            node[0] != "sym"
            or self.kind() != "("
            or self.tokens[self.i].spaced
            and not node[1].rstrip("'")[:1] in "fghFGHPTu"
        ):
            if node[0] == "sym" and node[1] in self.FUNCTION_LETTERS and self.kind() in ("'", "''"):
                return node
            return node
        name = node[1].split("_")[0].rstrip("'")
        simple = self.kind(2) == ")" and self.kind(1) in ("num", "run", "sym", "cmd") and len(str(self.value(1))) >= 1
        if (
            self.kind(1) == "run"
            and len(self.value(1)) > 1
            and self.value(1) not in PLAIN_NAMES
            and not self.value(1).isupper()
        ):
            simple = False
        if self.kind(1) == "cmd" and self.value(1) not in GREEK_NAMES | {"infty"}:
            simple = False
        function = name in self.FUNCTION_LETTERS or "'" in node[1]
        if not (simple or function or self.has_comma()):
            return node
        start = self.i
        arguments = self.bracketed()
        if arguments[0] == "tuple":
            if arguments[1:3] != ("(", ")"):
                raise Unreadable("an interval after a name")
            arguments = arguments[3]
        else:
            arguments = (arguments,)
        if self.i == start:
            raise Unreadable("arguments")
        if node[1] == "C" and len(arguments) == 2:
            return ("call", "binom", arguments)
        return ("app", node[1], tuple(arguments))

    FUNCTION_LETTERS = {"f", "g", "h", "F", "G", "H", "P", "Q", "T"} - {"H", "G", "T"}

    def has_comma(self) -> bool:
        depth = 0
        for token in self.tokens[self.i :]:
            if token.kind in ("(", "[", "\\{", "{", "langle"):
                depth += 1
            elif token.kind in (")", "]", "\\}", "}", "rangle"):
                depth -= 1
                if depth == 0:
                    return False
            elif token.kind == "," and depth == 1:
                return True
        return False

    def braced(self) -> tuple:
        self.expect("{")
        if self.accept("}"):
            if self.starts_primary():
                return self.power()
            raise Unreadable("an empty group")
        start_bars, self.bars = self.bars, 0
        first = self.answer()
        if self.kind() == "cmd" and self.value() in ("over", "choose"):
            name = self.value()
            self.i += 1
            second = self.sum()
            first = ("div", first, second) if name == "over" else ("call", "binom", (first, second))
        self.bars = start_bars
        self.expect("}")
        return first

    def bracketed(self) -> tuple:
        """Brackets: a grouped expression, a tuple, an interval, or a vector in angle brackets."""
        opening = self.kind()
        self.i += 1
        start_bars, self.bars, in_set, self.in_set = self.bars, 0, self.in_set, False
        inner = self.answer()
        self.bars, self.in_set = start_bars, in_set
        closing = self.kind()
        if opening in ("langle", "<"):
            if closing not in ("rangle", ">"):
                raise Unreadable("an angle bracket is not closed")
            self.i += 1
            return ("tuple", "(", ")", inner[1] if inner[0] == "list" else (inner,))
        if closing not in (")", "]"):
            raise Unreadable("a bracket is not closed")
        self.i += 1
        if inner[0] == "list" and set(inner[2]) <= {",", ";"}:
            return ("tuple", opening, closing, inner[1])
        if (opening, closing) in (("(", ")"), ("[", "]")):
            return ("group", inner) if inner[0] in ("sym", "text", "rel") and opening == "(" else inner
        raise Unreadable("brackets that do not match")

    def set(self) -> tuple:
        self.expect("\\{")
        if self.accept("\\}"):
            return ("set", ())
        save, self.in_set = self.in_set, True
        bars, self.bars = self.bars, 0
        first = self.answer()
        self.in_set, self.bars = save, bars
        if self.kind() in ("|", "mid", ":") or self.kind() == "cmd" and self.value() == "mid":
            self.i += 1
            conditions = self.answer()
            self.expect("\\}")
            return ("builder", first, conditions)
        self.expect("\\}")
        return ("set", first[1] if first[0] == "list" else (first,))

    def absolute(self) -> tuple:
        closing = "close|" if self.kind() == "open|" else "|"
        self.i += 1
        self.bars += 1
        if self.kind() == "|":  # a norm
            self.i += 1
            node = self.sum()
            self.expect("|")
            self.expect("|")
            self.bars -= 1
            return ("call", "norm", (node,))
        node = self.sum()
        self.bars -= 1
        if not self.accept(closing) and not self.accept("|" if closing == "close|" else "close|"):
            raise Unreadable("a vertical bar is not closed")
        return ("call", "abs", (node,))

    def matrix(self) -> tuple:
        name = self.value()
        self.expect("begin")
        self.matrices += 1
        rows = [[]]
        while not (self.kind() == "end"):
            if self.kind() == "&":
                self.i += 1
            elif self.kind() == "\\\\":
                self.i += 1
                rows.append([])
            elif self.kind() == "cmd" and self.value() == "hline":
                self.i += 1
            elif not self.kind():
                raise Unreadable("a matrix is not closed")
            else:
                cell = self.tail(self.statement())
                rows[-1].append(cell)
                if self.kind() not in ("&", "\\\\", "end"):
                    raise Unreadable("a cell of a matrix")
        self.i += 1
        self.matrices -= 1
        rows = tuple(tuple(row) for row in rows if row)
        if not rows or len({len(row) for row in rows}) != 1 or name == "cases":
            raise Unreadable("rows of different lengths")
        if name == "vmatrix":
            return ("call", "det", (("mat", rows),))
        return ("mat", rows)

    def argument(self) -> tuple:
        """The argument of \\frac and its like: a group, one digit, one letter or one command."""
        if self.kind() == "{":
            self.i += 1
            start_bars, self.bars = self.bars, 0
            node = self.tail(self.sum())
            self.bars = start_bars
            self.expect("}")
            return node
        if self.kind() == "num":
            value, digits = self.value()
            if len(digits) > 1 and digits[0].isdigit() and digits[1].isdigit():
                rest = digits[1:]
                self.tokens[self.i : self.i + 1] = [
                    Token("num", (Fraction(digits[0]), digits[0]), False),
                    Token("num", (Fraction(rest.removesuffix(".")), rest), False),
                ]
                value = Fraction(digits[0])
            self.i += 1
            return ("num", value)
        if self.kind() == "run":
            return self.letter()
        if self.kind() in ("cmd", "(", "sym"):
            return self.primary()
        raise Unreadable("an argument is missing")

    def command(self, name: str) -> tuple:
        if name in ("frac", "over"):
            self.i += 1
            start = self.i
            derivative = self.derivative()
            if derivative:
                return derivative
            self.i = start
            top = self.argument()
            bottom = self.argument()
            return ("div", top, bottom)
        if name == "sqrt":
            self.i += 1
            return self.root()
        if name == "binom":
            self.i += 1
            return ("call", "binom", (self.argument(), self.argument()))
        if name in ("sum", "prod"):
            return self.series(name)
        if name in FUNCTIONS or name in FUNCTION_SYNONYMS or name == "exp":
            self.i += 1
            return self.function(name)
        if name == "ldots":
            self.i += 1
            return ("sym", "...")
        if name == "infty":
            self.i += 1
            return ("const", "inf")
        if name == "emptyset":
            self.i += 1
            return ("set", ())
        if name in ("angle", "triangle"):
            self.i += 1
            letters = ""
            while self.kind() in ("run", "word"):
                letters += self.value()
                self.i += 1
            if not letters and self.kind() == "num":
                letters, self.i = str(self.value()[1]), self.i + 1
            if not letters:
                raise Unreadable(name)
            return ("sym", f"{name} {letters}")
        if name in GREEK_NAMES or name in ("hbar", "ell", "nabla", "partial", "Upsilon", "upsilon", "lambda", "Lambda"):
            self.i += 1
            return self.call_of(self.indexed(named(name)))
        if name in ("top", "intercal", "dagger"):
            self.i += 1
            return ("sym", "T" if name != "dagger" else name)
        raise Unreadable(f"the command {name}")

    def derivative(self) -> tuple | None:
        r"""\frac{dx}{dt} and \frac{d^2 x}{dt^2}, as a name such as x''|t."""
        end = self.i
        parts: list[list[Token]] = []
        for _ in range(2):
            if end >= len(self.tokens) or self.tokens[end].kind != "{":
                return None
            close = next(
                (
                    j
                    for j in range(end, len(self.tokens))
                    if self.tokens[j].kind == "}"
                    and sum(t.kind == "{" for t in self.tokens[end:j]) - sum(t.kind == "}" for t in self.tokens[end:j])
                    == 1
                ),
                None,
            )
            if close is None:
                return None
            parts.append(self.tokens[end + 1 : close])
            end = close + 1

        def spelled(tokens: list[Token]) -> str:
            return "".join(
                t.value[1]
                if t.kind == "num"
                else f"\\{t.value} "
                if t.kind == "cmd"
                else t.value
                if t.kind in ("run", "word", "sym")
                else t.kind
                for t in tokens
            )

        top, bottom = spelled(parts[0]), spelled(parts[1])
        d = r"(?:d|\\partial )"
        left = re.fullmatch(rf"{d}(?:\^\{{?(\d)\}}?)?(\\?[A-Za-z]+ ?(?:_\{{?\w+\}}?)?)", top)
        right = re.fullmatch(rf"{d}(\\?[A-Za-z]+ ?)(?:\^\{{?(\d)\}}?)?", bottom)
        if not left or not right or (left[1] or "1") != (right[2] or "1"):
            return None
        self.i = end
        name = re.sub(r"[\\ {}]", "", left[2])
        return ("sym", f"{name}{chr(39) * int(left[1] or 1)}|{right[1].strip(chr(92) + ' ')}")

    def root(self) -> tuple:
        degree = ("num", Fraction(2))
        if self.kind() == "[":
            self.i += 1
            degree = self.sum()
            self.expect("]")
        if self.kind() == "num":
            self.i += 1
            inner = ("num", self.tokens[self.i - 1].value[0])
        elif self.kind() == "(":
            inner = self.bracketed()
        else:
            inner = self.argument()
        return ("call", "root", (inner, degree))

    def series(self, name: str) -> tuple:
        self.i += 1
        low = high = None
        for _ in range(2):
            if self.kind() == "_":
                self.i += 1
                self.expect("{")
                low = self.statement()
                self.expect("}")
            elif self.kind() == "^":
                self.i += 1
                high = self.script()
        if low is None or high is None or low[0] != "rel" or low[2] != ("=",):
            raise Unreadable("a sum without bounds")
        variable, start = low[1]
        if variable == ("const", "i"):
            variable = ("sym", "i")
        if variable[0] != "sym":
            raise Unreadable("a sum over something else than a name")
        body = self.product()
        if variable[1] == "i":
            body = rename_i(body)
        return (name, variable[1], start, high, body)

    def function(self, name: str) -> tuple:
        name = FUNCTION_SYNONYMS.get(name, name)
        if name == "sqrt":
            return self.root()
        if name == "cbrt":
            return ("call", "root", (self.argument() if self.kind() == "{" else self.bracketed(), ("num", Fraction(3))))
        exponent = base = None
        while self.kind() in ("^", "_"):
            self.i += 1
            if self.tokens[self.i - 1].kind == "^":
                exponent = self.script()
            else:
                base = self.script()
        if self.kind() == "(":
            arguments = self.bracketed()
            arguments = arguments[3] if arguments[0] == "tuple" and arguments[1:3] == ("(", ")") else (arguments,)
        elif self.kind() == "{":
            arguments = (self.argument(),)
        else:
            arguments = (self.function_argument(),)
        if name == "log" and base is not None:
            node = ("call", "logb", (*arguments, base))
        elif name == "choose" or name == "binom":
            node = ("call", "binom", tuple(arguments))
        else:
            if base is not None:
                raise Unreadable("a subscript of a function")
            node = ("call", name, tuple(arguments))
        if exponent is not None:
            minus_one = exponent in (("neg", ONE), ("num", Fraction(-1)))
            if minus_one and name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"):
                return ("call", "arc" + name, tuple(arguments))
            node = ("pow", node, exponent)
        return node

    def function_argument(self) -> tuple:
        """The argument of a function without brackets: \\sin 2x, \\ln x^2, \\cos \\omega t."""
        negative = False
        if self.kind() in ("-", "+"):
            negative = self.kind() == "-"
            self.i += 1
        factors = []
        while not factors or self.juxtaposed():
            name = self.value() if self.kind() in ("cmd", "run") else ""
            if factors and (
                self.kind() in ("(", "[", "{") or name in FUNCTIONS | PLAIN_FUNCTIONS or name in ("sum", "sqrt")
            ):
                break
            start = self.i
            factor = self.power()
            factors.append(self.mixed(factor, start))
            if self.kind() == "/" and self.kind(1) == "num" and mentions_pi(product_of(factors)):
                self.i += 1
                factors = [("div", product_of(factors), self.power())]
        node = product_of(factors)
        return ("neg", node) if negative else node


def names_in(node) -> set[str]:
    if not isinstance(node, tuple):
        return set()
    return {node[1]} if len(node) == 2 and node[0] == "sym" else set().union(*map(names_in, node)) if node else set()


def is_condition(item: tuple, value: tuple) -> bool:
    """Whether the second of two items says for which names the first holds: n^2, n \\ge 1."""
    ordered = item[0] == "rel" and set(item[2]) <= {"<", ">", "le", "ge", "ne"}
    return (
        ordered
        and value[0] in ("add", "mul", "div", "pow", "call", "sym", "neg")
        and bool(names_in(item))
        and names_in(item) <= names_in(value)
    )


def product_of(factors: list[tuple]) -> tuple:
    return factors[0] if len(factors) == 1 else ("mul", tuple(factors))


def mentions_pi(node) -> bool:
    return node == ("const", "pi") or isinstance(node, tuple) and any(mentions_pi(part) for part in node)


def rename_i(node):
    """The imaginary unit becomes the name i, over which a sum runs."""
    if node == ("const", "i"):
        return ("sym", "i")
    return tuple(rename_i(part) for part in node) if isinstance(node, tuple) else node


def literal(node: tuple) -> bool:
    """Whether an expression is made of numbers and of pi only."""
    if node[0] in ("num", "const"):
        return node[0] == "num" or node[1] == "pi"
    if node[0] in ("neg", "pm", "deg", "pct"):
        return literal(node[1])
    if node[0] in ("add", "mul"):
        return all(literal(part) for part in node[1])
    if node[0] in ("div", "pow"):
        return literal(node[1]) and literal(node[2])
    return node[0] == "call" and all(literal(part) for part in node[2])


def named(name: str) -> tuple:
    if name in ("pi", "e", "i"):
        return ("const", name)
    if name in ("infty", "infinity", "inf", "oo"):
        return ("const", "inf")
    return ("sym", name)


def raised(node: tuple, exponent: tuple) -> tuple:
    """A power; T over a single capital letter or a matrix is the transpose, * and the like make a name."""
    if node[0] == "sym" and exponent in (("sym", "*"), ("sym", "dagger")):
        return ("sym", node[1] + "^" + exponent[1])
    if exponent == ("sym", "T") and node[0] == "tuple":
        return node
    if exponent == ("sym", "T") and (node[0] == "mat" or node[0] == "sym" and len(node[1]) == 1 and node[1].isupper()):
        return ("sym", node[1] + "^T") if node[0] == "sym" else ("mat", tuple(zip(*node[1], strict=True)))
    return ("pow", node, exponent)


BASES = {
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "twelve": 12,
    "sixteen": 16,
}


def based(node: tuple, subscript: str) -> tuple:
    """A whole number with its base as a subscript."""
    base = BASES.get(subscript.lower()) or (int(subscript) if re.fullmatch(r"\d{1,2}", subscript) else 0)
    if node[0] != "num" or node[1].denominator != 1 or not 2 <= base <= 36:
        raise Unreadable("a subscript after something else than a name")
    return based_digits("", str(node[1]), "", base)


def based_digits(sign: str, whole: str, fraction: str, base: int) -> tuple:
    digits = (whole + fraction).upper()
    try:
        value = Fraction(int(digits, base), base ** len(fraction))
    except ValueError:
        raise Unreadable("a digit that its base lacks") from None
    return (
        "base",
        -value if sign else value,
        base,
        sign + whole.upper() + (f".{fraction.upper()}" if fraction else ""),
    )


def clock(node: tuple, word: str) -> tuple:
    half = {"a": "am", "p": "pm", "noon": "pm", "midnight": "am"}.get(word, word if word in ("am", "pm") else "")
    if node[0] == "time":
        return ("time", node[1], node[2], half)
    if node[0] == "num" and node[1].denominator == 1 and 0 <= node[1] <= 24:
        return ("time", int(node[1]), 0, half)
    raise Unreadable("a.m. or p.m. after something else than a time")


def regroup(items: list[tuple], separators: list[str]) -> tuple:
    """1,2;3,4 is a list of two tuples."""
    groups = [[items[0]]]
    for item, separator in zip(items[1:], separators, strict=True):
        if separator == ",":
            groups[-1].append(item)
        else:
            groups.append([item])
    return (
        "list",
        tuple(("list", tuple(g), (",",) * (len(g) - 1)) if len(g) > 1 else g[0] for g in groups),
        (";",) * (len(groups) - 1),
    )


BASED = re.compile(r"(-?)\(?([0-9A-Za-z]+)(?:\.([0-9A-Za-z]+))?\)?_(?:\{\(?(\d{1,2}|[a-z]+)\)?\}|(\d{1,2}))\.?")


def whole_based(text: str) -> tuple | None:
    """An answer that is a number in another base, with letters as digits or not: 52_8, A2F_{16}, (4343)_6."""
    plain = re.sub(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname|rm)(?![A-Za-z])\s*\{([^{}]*)\}", r"\1", text)
    if found := re.fullmatch(r"\s*\\(?:boldsymbol|mathbf|bm|displaystyle|boxed)\s*\{(.*)\}\s*", plain):
        plain = found[1]
    plain = re.sub(r"^\s*[A-Za-z]\s*=", "", plain)
    plain = re.sub(r"\\left|\\right|\\[,!;: ]|[\s$~]", "", plain).replace("{,}", "")
    found = BASED.fullmatch(plain)
    if not found:
        return None
    base = BASES.get(found[4] or found[5]) or (int(found[4] or found[5]) if (found[4] or found[5]).isdigit() else 0)
    whole, letters = found[2], re.search("[A-Za-z]", found[2])
    if (
        not 2 <= base <= 36
        or letters
        and (base <= 10 or len(whole) < 2 or not re.fullmatch("[0-9A-Z]+|[0-9a-z]+", whole))
    ):
        return None
    return based_digits(found[1], whole, found[3] or "", base)


@lru_cache(8192)
def read(text: str, loose: bool = False, commas: str = "auto") -> tuple | None:
    """Returns the tree of an answer, or None for what the grammar does not hold.

    Args:
        text: the content of a box, or a gold answer.
        loose: letters after a number and a space are a unit where they can be.
        commas: 1,234 is one number ("number"), two ("list"), or as it looks ("auto").
    """
    if len(text) > MAX_LENGTH:
        return None
    try:
        if "_" in text and (node := whole_based(text)):
            return node
        return Parser(Lexer(characters(text), commas).tokens, loose).whole()
    except (Unreadable, RecursionError, ValueError, ZeroDivisionError, IndexError):
        return None
