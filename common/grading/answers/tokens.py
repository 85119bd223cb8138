r"""Splits the text of an answer, in LaTeX, plain text or a mixture, into tokens for the reader.

Styles (\mathbf, \color, \left, \displaystyle ...) and delimiters of mathematics ($, \[, \() are dropped here, Unicode's
mathematical characters are written in LaTeX, and synonyms get one spelling. Kinds of token:

    num    (value, digits): 7, .5, 10,\!080, 5 000, 4.5e33, 0.1\overline{6}
    run    letters in italics: a variable, a product of variables, or a function's name in plain text
    word   letters in upright type, or in plain text where they are a word and not a product
    sym    a name with an accent, a number set, or a unit vector (written with U+0302, a circumflex)
    cmd    any other command, without its backslash

and signs, which are their own kind: + - * / ^ _ = < > le ge ne approx equiv in ( ) [ ] { } \{ \} | open| close| langle
rangle lfloor lceil begin end & \\ degree ...
"""

import re
import unicodedata
from fractions import Fraction
from typing import Any, NamedTuple

MAX_EXPONENT = 5000  # of ten, in 1e5000
MAX_DIGITS = 3000  # of one number


class Unreadable(ValueError):
    """The text does not fit the grammar."""


class Token(NamedTuple):
    kind: str
    value: Any = ""  # a string; of a "num" the Fraction and the digits that were written
    spaced: bool = False  # whether a space stands before it


# ---------------------------------------------------------------- characters

SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣᵗ", "0123456789+-()nixt", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙᵢₓ", "0123456789+-nix", strict=True))
SCRIPTS = re.compile(f"([{''.join(SUPERSCRIPTS)}]+)|([{''.join(SUBSCRIPTS)}]+)")
VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"

LETTERS_OF_GREEK = "αβγδϵεζηθικλμµνξπρστυφϕχψω ΓΔΘΛΞΠΣΥΦΨΩ"
NAMES_OF_GREEK = (
    "alpha beta gamma delta epsilon epsilon zeta eta theta iota kappa lambda mu mu nu xi pi rho sigma tau upsilon phi "
    "phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
).split()
GREEK_NAMES = set(NAMES_OF_GREEK)

CHARACTERS = {c: rf"\{name} " for c, name in zip(LETTERS_OF_GREEK.replace(" ", ""), NAMES_OF_GREEK, strict=True)}
for _row in r"""
    − -   – -   — -   ‐ -   ‑ -   ÷ /   ∕ /   ⁄ /   ′ '   ’ '   ʹ '   ″ ''
    × \times   · \cdot   ⋅ \cdot   • \cdot   ∙ \cdot   ∞ \infty   √ \sqrt   ∛ \sqrt[3]   ≠ \ne   ± \pm   ∓ \mp
    ≤ \le   ⩽ \le   ≥ \ge   ⩾ \ge   ≈ \approx   ≃ \approx   ≅ \approx   ≡ \equiv   ∴ \therefore   ⇒ \therefore
    ⟹ \therefore   → \to   ∈ \in   ∪ \cup   ∩ \cap   ∖ \setminus   ∅ \emptyset   Ø \emptyset   ∣ \mid   ∀ \forall
    ⟨ \langle   ⟩ \rangle   〈 \langle   〉 \rangle   ⌊ \lfloor   ⌋ \rfloor   ⌈ \lceil   ⌉ \rceil   … \ldots   ⋯ \ldots
    ° ^\circ   º ^\circ   ℃ ^\circ\;C   ℉ ^\circ\;F   ∠ \angle   △ \triangle   ∂ \partial   ∑ \sum   ℏ \hbar
    ℝ \mathbb{R}   ℤ \mathbb{Z}   ℕ \mathbb{N}   ℚ \mathbb{Q}   Å \AA   Å \AA   Ω \Omega
    € \text{EUR}   £ \text{GBP}   ¥ \text{yen}   ₹ \text{rupee}   ¢ \text{cent}
""".split("\n"):
    _fields = _row.split()
    CHARACTERS |= {c: latex + " " * latex[-1].isalpha() for c, latex in zip(_fields[::2], _fields[1::2], strict=True)}
CHARACTERS |= dict.fromkeys("\u201c\u201d\u202f\u00a0", " ") | dict.fromkeys("\u200b\u200e\u200f", "")

ASCII_FORMS = dict(pair.split() for pair in ("+/- \\pm", "+- \\pm", "<= \\le", ">= \\ge", "!= \\ne", "** ^", "-> \\to"))


def characters(text: str) -> str:
    """Returns the text with Unicode's mathematical characters in LaTeX; closes braces that were cut off."""
    if not text.isascii():
        text = "".join(CHARACTERS.get(c, c) for c in text)
        text = re.sub(rf"(\d)(?=[{VULGAR}])", r"\1 ", text)

        def script(found: re.Match) -> str:
            table, sign = (SUPERSCRIPTS, "^") if found[1] else (SUBSCRIPTS, "_")
            return f"{sign}{{{''.join(table[c] for c in found[0])}}}"

        text = unicodedata.normalize("NFKC", SCRIPTS.sub(script, text))  # full-width letters; ½ becomes 1⁄2
        text = re.sub(r"(\d+)⁄(\d+)", r"\\frac{\1}{\2}", text)
        text = "".join(CHARACTERS.get(c, c) for c in text)
    text = re.sub(r"^\s*\*\*(.*)\*\*\s*$", r"\1", text.rstrip("\\ "))  # **5**; a backslash at the end
    for plain, latex in ASCII_FORMS.items():
        text = text.replace(plain, latex + " " * latex[-1].isalpha())
    missing = len(re.findall(r"(?<!\\)\{", text)) - len(re.findall(r"(?<!\\)\}", text))
    if 0 < missing <= 2:  # the end was cut off
        text += "}" * missing
    if "\\\\" in text and r"\begin" not in text:  # backslashes were escaped twice
        text = re.sub(r"\\\\(?=[A-Za-z]{2})", r"\\", text)
    return text


# ---------------------------------------------------------------- commands

STYLES = set(
    "mathbf boldsymbol bm bf mathit it mathsf sf mathtt tt bold pmb displaystyle textstyle scriptstyle large Large "
    "LARGE huge Huge small tiny normalsize footnotesize limits nolimits left right middle bigl bigr Bigl Bigr biggl "
    "biggr Biggl Biggr big Big bigg Bigg bigm boxed fbox underline uline underbrace ensuremath mathstrut strut "
    "centering mathopen mathclose mathord mathrel mathbin smash mathnormal enclose".split()
)
TEXT = set("text textrm textbf textit textnormal textsf texttt textsc textup mbox hbox emph textsl".split())
UPRIGHT = set("mathrm rm operatorname mathop up".split())
DROPPED = set(
    "phantom hphantom vphantom hspace vspace tag label color textcolor colorbox".split()
)  # with their argument
SPACES = set(r", ; : > ! quad qquad thinspace medspace enspace hfill space nobreak".split()) | {" ", "\n"}
ACCENTS = set("hat widehat bar overline tilde widetilde vec overrightarrow dot ddot overarc".split())
DERIVATIVES = {"dot": "'|t", "ddot": "''|t"}  # by time
SYNONYMS: dict[str, str] = {}
for _name, _others in {
    "frac": "dfrac tfrac cfrac",
    "binom": "dbinom tbinom",
    "le": "leq leqslant leqq",
    "ge": "geq geqslant geqq",
    "ne": "neq",
    "<": "lt",
    ">": "gt",
    "approx": "sim simeq thickapprox cong doteq",
    "therefore": "because implies Rightarrow Longrightarrow so",
    "to": "rightarrow",
    "or": "lor vee",
    "and": "land wedge",
    "cdot": "cdotp bullet ast star times",
    "/": "div",
    ":": "colon",
    "|": "vert lvert rvert",
    "{": "lbrace",
    "}": "rbrace",
    "[": "lbrack",
    "]": "rbrack",
    "ldots": "dots cdots dotsc dotsb dotso",
    "emptyset": "varnothing O",
    "setminus": "backslash",
    "cup": "bigcup",
    "cap": "bigcap",
    "angle": "ang measuredangle",
    "degree": "textdegree",
    "infty": "infin",
    "epsilon": "varepsilon",
    "phi": "varphi",
    "theta": "vartheta",
    "mu": "textmu",
    "dagger": "dag",
    "hat": "widehat",
    "bar": "overline",
    "tilde": "widetilde",
    "mathcal": "mathscr mathfrak",
    "$": "textdollar dollar",
}.items():
    SYNONYMS |= dict.fromkeys(_others.split(), _name)
RELATION_COMMANDS = {"le", "ge", "ne", "approx", "equiv", "in"}
UNIT_COMMANDS = {"euro": "EUR", "pounds": "GBP", "celsius": "°C", "ohm": "Ω", "AA": "Å"}
SIGN_COMMANDS = {"cdot": "*", "prime": "'"} | {c: c for c in "%$<>/:|[]"}

# ---------------------------------------------------------------- letters

FUNCTIONS = set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch arcsinh arccosh "
    "arctanh ln log lg exp gcd lcm max min det sign Re Im abs floor ceil sqrt cbrt".split()
)
FUNCTION_SYNONYMS: dict[str, str] = {}
for _name, _others in {
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan arctg",
    "arccot": "arcctg",
    "arcsinh": "asinh arsinh",
    "arccosh": "acosh arcosh",
    "arctanh": "atanh artanh",
    "tan": "tg",
    "cot": "ctg",
    "csc": "cosec",
    "sinh": "sh",
    "cosh": "ch",
    "sign": "sgn",
    "binom": "choose",
}.items():
    FUNCTION_SYNONYMS |= dict.fromkeys(_others.split(), _name)
PLAIN_FUNCTIONS = FUNCTIONS | {n for n in FUNCTION_SYNONYMS if len(n) > 2} | {"binom"}  # in letters without a backslash
NOUNS_TOO = {"floor", "max", "min", "sign", "abs", "choose"}  # in upright type these are words
PLAIN_NAMES = GREEK_NAMES | {"infty", "infinity", "inf", "oo"}
CONNECTIVES = {"and", "or"}
ABBREVIATIONS = set("sq cu in ft lb lbs oz min sec hr hrs yd mi cm approx rs".split())  # a full stop may follow
SHORT_WORDS = set("the are and for all any yes not per each one two six ten mod".split())
SHORT_UNITS = set(  # in plain text after a number; the others only in upright type or as `loose` reading
    "sq cu cm mm km kg ft lb lbs oz hr hrs gal sec mph kph deg eV keV MeV GeV Hz kHz MHz GHz kPa kpc Mpc USD EUR GBP "
    "usd erg ergs atm".split()
)
BETWEEN_SPACES = set("an be of in to no so we at as by on it if is rad".split())  # also products of variables


def is_word(run: str, between_spaces: bool, set_off: bool, after_number: bool) -> bool:
    """Says whether letters in plain text are a word, rather than a function, a name or a product of variables.

    Args:
        run: the letters.
        between_spaces: whether a space or an end of the text is on either side.
        set_off: whether spaces or signs of punctuation set them off.
        after_number: whether a number or a unit stands before them.
    """
    if run in PLAIN_FUNCTIONS | PLAIN_NAMES:
        return False
    if run in SHORT_UNITS:
        return after_number or run in ("USD", "EUR", "GBP")
    if run in SHORT_WORDS or run in CONNECTIVES:
        return True
    if run in BETWEEN_SPACES:
        return between_spaces
    if len(run) < 3 or not run[1:].islower() or not set(run.lower()) & set("aeiouy"):
        return False
    letters = sorted(run.lower())
    if all(ord(b) - ord(a) <= 1 for a, b in zip(letters, letters[1:], strict=False)):  # abc, zyx
        return False
    return set_off or len(run) > 4 or run[0].isupper() and len(run) > 3


# ---------------------------------------------------------------- numbers

DIGITS = re.compile(
    r"(?P<grouped>\d{1,3}(?:(?:,(?:\\!\s*)+|\{,\}(?:\\!)?\s*)\d{3})+(?!\d)(?:\.\d+)?)"  # 10,\!080  10{,}080
    r"|(?P<spaced>\d{1,3}(?:(?:\\,|\\ |~|\\;|\\:| )\d{3})+(?![\d/])(?:\.\d+)?(?!,))"  # 5 000 000
    r"|(?P<comma>\d{1,3}(?:,\d{3})+(?!\d)(?!,\d)(?:\.\d+)?)"  # 1,234, or a list
    r"|(?P<repeating>\d*\.\d*(?:\\overline|\\bar|\\dot)\s*(?:\{\s*\d+\s*\}|\d)(?:\d*\\dot\s*\{?\d\}?)?|\d+\.\(\d+\))"
    r"|(?P<science>(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+(?![A-Za-z\d]))"
    r"|(?P<plain>\d+\.\d+|\.\d+|\d+\.?(?!\d)|\d+)"
)
PERIOD = re.compile(
    r"(\d*)(?:\\(?:overline|bar)\s*\{?\s*(\d+)|\\dot\s*\{?\s*(\d+)\s*\}?(?:(\d*)\\dot\s*\{?(\d))?|\((\d+)\))"
)
DOTS = re.compile(r"\.\.\.|\\(?:[lc]?dots)(?![A-Za-z])")


def repeating(digits: str) -> Fraction:
    r"""Returns the value of 0.1\overline{6}, .\bar 3, 0.\dot{1}4\dot{2}, 0.(3)."""
    whole, _, rest = digits.partition(".")
    found = PERIOD.match(rest)
    if found is None:
        raise Unreadable(f"the decimal {digits}")
    fixed = (whole or "0") + found[1]
    period = found[2] or found[6] or found[3] + (found[4] or "") + (found[5] or "")
    return Fraction(int(fixed + period) - int(fixed), 10 ** len(found[1]) * (10 ** len(period) - 1))


def looks_like_list(digits: str) -> bool:
    """Says whether groups of three digits, as in 100,200, look like a list: round numbers, or successive ones."""
    groups = digits.split(".")[0].split(",")
    if any(len(g) != 3 or g[0] == "0" for g in groups):
        return False
    values = [int(g) for g in groups]
    steps = {b - a for a, b in zip(values, values[1:], strict=False)}
    return all(v % 50 == 0 for v in values) or len(steps) == 1 and (len(values) > 2 or 0 < abs(min(steps)) <= 10)


def group_end(text: str, start: int) -> int:
    """Returns the position after the brace that closes the one at `start`."""
    depth = 0
    for found in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += (found[0] == "{") - (found[0] == "}")
        if depth == 0:
            return found.end()
    raise Unreadable("a brace is not closed")


# ---------------------------------------------------------------- the lexer

COMMAND = re.compile(r"\\([A-Za-z]+\*?|.)", re.DOTALL)
RUN = re.compile(r"[A-Za-z]+")
WORD = re.compile(r"[A-Za-z]\.[A-Za-z]\.(?:[A-Za-z]\.)?|[^\W\d_]+(?:[-'][^\W\d_]+)*")
HALF_DAY = re.compile(r"([ap])\.\s?m\.?", re.IGNORECASE)
UNIT_VECTOR = re.compile(r"\s*\{?\s*(?:\\mathbf\s*)?\{?\s*\\?([ijk])(?:math)?(?![A-Za-z])\s*\}?\s*\}?")
BOLD_VECTOR = re.compile(r"\s*\{\s*(?:\\(?:hat|vec)\s*\{)?\s*\\?([ijk])(?:math)?\s*\}?\s*\}")
CIRCLE = re.compile(
    r"\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*(?:\\(?:text|mathrm|rm)\s*\{\s*(?P<upright>[CF])\s*\}|(?P<scale>[CF]))?\s*\})"
)
TEMPERATURE = re.compile(
    r"\s*(?:\\[,;: ]\s*)*(?:\\(?:text|mathrm|rm)\s*\{\s*)?(C|F|Celsius|Fahrenheit)(?![A-Za-z])\s*\}?"
)
ACCENTED = re.compile(r"\s*(?:\{\s*(\\?[A-Za-z]+(?:_\{?\w+\}?)?)\s*\}|(\\[A-Za-z]+|[A-Za-z]))")
CAPITAL = re.compile(r"\s*\{?\s*([A-Za-z])\s*\}?")
CIRCUMFLEX = "\u0302"


class Lexer:
    """Collects the tokens of a text.

    Args:
        text: the content of a box, or a gold answer.
        commas: how 1,234 is read outside brackets: as a "number", a "list", or by its looks ("auto").
    """

    def __init__(self, text: str, commas: str):
        self.tokens: list[Token] = []
        self.commas = commas
        self.braces = 0  # that are open, except those of styles
        self.brackets = 0  # ( [ \{ and the like that are open: a comma separates there
        self.scan(characters(text), "math")

    def scan(self, text: str, mode: str, spaced: bool = False) -> None:
        r"""Adds the tokens of a text in "math", in upright type ("upright", of \mathrm), or of \text ("text")."""
        outer = getattr(self, "text", ""), getattr(self, "i", 0), getattr(self, "mode", mode)
        self.text, self.i, self.mode = text, 0, mode
        styled = False  # whether the last command was a style, whose braces do not count
        while self.i < len(text):
            c = text[self.i]
            if c in " \t\n\r~$" and not (c == "$" and mode != "math"):
                self.i, spaced = self.i + 1, spaced or c != "$"
            elif c == "\\":
                command = self.take(COMMAND)
                if not command:
                    raise Unreadable("a backslash at the end")
                name = command[1].rstrip("*") or "*"
                if name in SPACES:
                    spaced = spaced or name != "!"
                else:
                    self.command(SYNONYMS.get(name, name), spaced)
                    styled, spaced = name in STYLES, False
            else:
                if re.match(r"\d|\.\d|\.\\(?:overline|bar|dot)", text[self.i : self.i + 10]):
                    self.number(spaced)
                elif c.isalpha():
                    self.word(spaced) if mode != "math" else self.letters(spaced)
                else:
                    self.sign(c, spaced, styled)
                styled, spaced = False, False
        self.text, self.i, self.mode = outer

    def take(self, pattern: re.Pattern) -> re.Match | None:
        """Matches a pattern at the current position and moves behind it."""
        found = pattern.match(self.text, self.i)
        if found:
            self.i = found.end()
        return found

    def group(self) -> str | None:
        """Takes the braces that come next and returns their content; None if there are none."""
        if not self.take(re.compile(r"\s*\{")):
            return None
        start, self.i = self.i, group_end(self.text, self.i - 1)
        return self.text[start : self.i - 1]

    def add(self, kind: str, value: object = "", spaced: bool = False) -> None:
        self.tokens.append(Token(kind, value, spaced))

    def last(self) -> str:
        return self.tokens[-1].kind if self.tokens else ""

    def sign(self, c: str, spaced: bool, styled: bool) -> None:
        if self.text.startswith("...", self.i):
            self.i += 3
            self.add("cmd", "ldots", spaced)
            return
        self.i += 1
        if c == "$":  # mathematics within \text
            end = self.text.find("$", self.i)
            if end >= 0:
                inner, self.i = self.text[self.i : end], end + 1
                self.scan(inner, "math", spaced)
        elif c == "^" and (circle := self.take(CIRCLE)):
            scale = circle["upright"] or circle["scale"] or (found := self.take(TEMPERATURE)) and found[1]
            self.add("word" if scale else "degree", f"°{scale[0]}" if scale else "", spaced)
        elif c in "{}":
            self.braces = max(0, self.braces + (c == "{" and not styled) - (c == "}"))
            self.add(c, "", spaced)
        elif c in "([)]":
            self.brackets += 1 if c in "([" else -1
            self.add(c, "", spaced)
        elif c in "+-*/^_=<>,;:!|&'.?%\"`":
            self.add({"`": "'", '"': "''"}.get(c, c), "", spaced)
        else:
            raise Unreadable(f"the character {c!r}")

    # ------------------------------------------------ words

    def word(self, spaced: bool) -> None:
        """A word in upright type."""
        found = self.take(WORD)
        assert found is not None  # it is called where a letter stands
        word = found[0]
        plain = word.replace(".", "")
        if self.mode == "upright" and (plain in PLAIN_FUNCTIONS - NOUNS_TOO or plain in ("e", "i", "d")):
            self.add("run", plain, spaced)
            return
        if word.lower() in ABBREVIATIONS and self.text[self.i : self.i + 1] == ".":
            self.i += 1
        self.add("word", plain, spaced)

    def letters(self, spaced: bool) -> None:
        """Letters in plain text or in italics."""
        if half_day := self.take(HALF_DAY):
            self.add("word", half_day[1] + "m", spaced)
            return
        run = self.take(RUN)
        if not run:
            raise Unreadable(f"the letter {self.text[self.i]}")
        run, following = run[0], self.text[self.i : self.i + 10]
        if run == "np" and following[:1] == ".":  # np.arcsin
            self.i += 1
        elif run in ("frac", "dfrac", "tfrac", "sqrt") and following[:1] == "{":  # without its backslash
            self.add("cmd", SYNONYMS.get(run, run), spaced)
        elif run == "x" and spaced and self.last() == "num" and re.match(r"\s+10\s*\^", following):  # 4.5 x 10^3
            self.add("*", "", spaced)
        elif run.lower() in ("am", "pm") and (spaced or self.tokens[-2:-1] and self.tokens[-2].kind == ":"):
            self.add("word" if self.last() == "num" else "run", run.lower() if self.last() == "num" else run, spaced)
        else:
            open_ended = self.braces == 0 and (not following or following[0] in " ,.:/\n$^)")
            set_off = open_ended and (spaced or self.last() in ("", "/", ",", "*", "(", ":", "="))
            between = set_off and (spaced or not self.tokens) and following[:1] in ("", " ", "\n")
            after_number = self.braces == 0 and self.last() in ("num", "word", "/", "*", "}", "(", ")", "%")
            article = run in ("a", "A") and re.match(r"\s[a-z]{3}", following)
            word = article or is_word(run, between, set_off, after_number)
            self.add("word" if word else "run", run, spaced)
            self.i += word is True and run in ABBREVIATIONS and re.match(r"\.\s", following) is not None

    # ------------------------------------------------ numbers

    def number(self, spaced: bool) -> None:
        found = DIGITS.match(self.text, self.i)
        if not found or len(found[0]) > MAX_DIGITS or not found[0].isascii():
            raise Unreadable("a number that is too long, or in another script")
        digits, kind = found[0], found.lastgroup
        if kind == "comma":
            if self.brackets > 0 or self.commas == "list" or self.commas == "auto" and looks_like_list(digits):
                digits, kind = digits.split(",")[0], "plain"
        self.i += len(digits)
        plain = re.sub(r"[^\d.]", "", digits)
        if kind == "repeating":
            value = repeating(digits)
        elif kind == "science":
            mantissa, exponent = re.split("[eE]", digits)
            if len(exponent) > 5 or abs(int(exponent)) > MAX_EXPONENT:
                raise Unreadable("a huge exponent")
            value = Fraction(mantissa.removesuffix(".")) * Fraction(10) ** int(exponent)
        elif kind == "plain" and DOTS.match(self.text, self.i) and (period := self.shown_period(plain)):
            self.take(DOTS)
            value = period
        else:
            value = Fraction(plain.removesuffix("."))
        self.add("num", (value, digits.removesuffix(".")), spaced)

    def shown_period(self, digits: str) -> Fraction | None:
        """The value of 0.333... and 0.2727..., whose period is written at least three times, or twice if it is long."""
        found = re.fullmatch(r"(\d*)\.(\d*?)(\d{1,3}?)\3\3+", digits) or re.fullmatch(r"(\d*)\.()(\d{2,6}?)\3", digits)
        return repeating(f"{found[1]}.{found[2]}\\overline{{{found[3]}}}") if found else None

    # ------------------------------------------------ commands

    def command(self, name: str, spaced: bool) -> None:
        """Adds the tokens of a command, behind whose name the current position is."""
        if name in ("[", "]") and self.text[self.i - 2] == "\\" or name in ("(", ")"):
            return  # \[ and \( around mathematics
        if name in STYLES:
            self.style(name, spaced)
        elif name in DROPPED:
            if self.group() is None and name == "color":
                self.take(re.compile(r"\s*[A-Za-z]*"))
        elif name in TEXT or name in UPRIGHT:
            self.upright(name, spaced)
        elif name in UNIT_COMMANDS:
            self.add("word", UNIT_COMMANDS[name], spaced)
        elif name == "\\":
            self.take(re.compile(r"\*?\s*\[[\d.]+\s*[a-z]{2}\]"))  # \\[2pt]
            self.add("\\", "", spaced)
        elif name in RELATION_COMMANDS or name == "degree":
            self.add(name, "", spaced)
        elif name in SIGN_COMMANDS:
            self.add(SIGN_COMMANDS[name], "", spaced)
        elif name in ("{", "}", "langle", "rangle", "lfloor", "rfloor", "lceil", "rceil"):
            self.brackets += 1 if name[0] in "{l" else -1
            self.add("\\" + name if name in "{}" else name, "", spaced)
        elif name in ("begin", "end"):
            self.environment(name, spaced)
        elif name in ("hat", "vec") and (vector := self.take(UNIT_VECTOR)):
            self.add("sym", vector[1] + CIRCUMFLEX, spaced)
        elif name in ACCENTS:
            self.accent(name, spaced)
        elif name in ("mathbb", "mathcal"):
            letter = self.take(CAPITAL)
            if not letter:
                raise Unreadable(f"\\{name} over something else than a letter")
            self.add("sym", f"{'set' if name == 'mathbb' else name} {letter[1]}", spaced)
        elif name in ("R", "Reals"):
            self.add("sym", "set R", spaced)
        elif name == "not":
            if not self.take(re.compile(r"\s*=")):
                raise Unreadable("a negated relation")
            self.add("ne", "", spaced)
        elif name in CONNECTIVES:
            self.add("word", name, spaced)
        elif name in ("imath", "jmath"):
            self.add("run", name[0], spaced)
        elif name in ("pmod", "mod", "bmod", "pod"):
            self.add("word", "mod", spaced)
            if name in ("pmod", "pod") and (modulus := self.group()) is not None:
                self.scan(modulus, "math")
        else:
            self.add("cmd", name, spaced)

    def style(self, name: str, spaced: bool) -> None:
        """Drops a style, but reads brackets that \\left and \\right set apart, and bold unit vectors."""
        if name in ("left", "right"):
            side = 0 if name == "left" else 1
            if self.take(re.compile(r"\s*[<>]")):
                self.add(("langle", "rangle")[side], "", spaced)
            elif self.take(re.compile(r"\s*(?:\||\\[lr]?vert(?![A-Za-z]))")):
                self.add(("open|", "close|")[side], "", spaced)
            else:
                self.take(re.compile(r"\s*\."))
        elif name in ("mathbf", "boldsymbol", "bm") and (vector := self.take(BOLD_VECTOR)):
            self.add("sym", vector[1] + CIRCUMFLEX, spaced)

    def upright(self, name: str, spaced: bool) -> None:
        inner = self.group()
        mode = "text" if name in TEXT else "upright"
        if inner is None:
            letter = self.take(re.compile(r"\s*([A-Za-z])")) if name not in ("rm", "up") else None
            if letter:
                self.add("word", letter[1], spaced)
        elif inner.strip() in (PLAIN_FUNCTIONS | set(FUNCTION_SYNONYMS)) - NOUNS_TOO:
            self.add("cmd", inner.strip(), spaced)
        else:
            self.scan(inner, mode, spaced or mode == "text" and bool(self.tokens))

    def environment(self, name: str, spaced: bool) -> None:
        """Matrices keep their \\begin and \\end; other environments are dropped."""
        kind = self.take(re.compile(r"\s*\{([a-zA-Z]+)\*?\}"))
        if not kind:
            raise Unreadable(name)
        if "matrix" in kind[1] or kind[1] in ("array", "cases"):
            if kind[1] == "array" and name == "begin":
                self.group()  # the columns
            self.brackets += 1 if name == "begin" else -1
            self.add(name, kind[1], spaced)

    def accent(self, name: str, spaced: bool) -> None:
        """An accent makes another name; an arrow is a style; dots are derivatives by time."""
        found = self.take(ACCENTED)
        if not found:
            raise Unreadable(f"\\{name} over something else than a name")
        inner = found[1] or found[2]
        if name in ("vec", "overrightarrow"):
            self.scan(inner, "math", spaced)
            return
        base, _, subscript = inner.lstrip("\\").partition("_")
        base += "_" + subscript.strip("{}") if subscript else ""
        self.add("sym", base + DERIVATIVES[name] if name in DERIVATIVES else f"{name} {base}", spaced)


def outward_brackets(tokens: list[Token]) -> list[Token]:
    """Returns the tokens with ]2, 3[ written as (2, 3), [2, 3[ as [2, 3), and <1, 2> in angle brackets."""
    if len(tokens) > 2 and tokens[0].kind == "<" and tokens[-1].kind == ">":
        tokens = [Token("langle"), *tokens[1:-1], Token("rangle")]
    written = list(tokens)
    commas: list[bool] = []  # for each open bracket, whether a comma was seen within it
    for i, token in enumerate(tokens):
        following = tokens[i + 1] if i + 1 < len(tokens) else Token(",")
        ends = following.kind in (",", ";", "word", ".") or following.value in ("cup", "cap", "setminus")
        if token.kind == "]" and not commas:
            written[i] = Token("(", "", token.spaced)
            commas.append(False)
        elif token.kind == "[" and commas and commas[-1] and ends:
            written[i] = Token(")", "", token.spaced)
            commas.pop()
        elif token.kind in ("(", "["):
            commas.append(False)
        elif token.kind in (")", "]") and commas:
            commas.pop()
        elif token.kind in (",", ";") and commas:
            commas[-1] = True
    return written


def tokens_of(text: str, commas: str) -> list[Token]:
    """Returns the tokens of a text (see `Lexer`)."""
    return outward_brackets(Lexer(text, commas).tokens)
