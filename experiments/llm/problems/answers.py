r"""Answers as they stand in text: the last box, the number after ``####``, the letter chosen.

Nothing here imports JAX: `equivalent` runs in processes of its own.
"""

from __future__ import annotations

import logging
import re
from decimal import Decimal

LETTERS = "ABCDEFGHIJ"

_SPACES = re.compile(r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|\s+")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_UNIT = re.compile(
    r"(?<=.)(?:\s+\\(?:text|mathrm|mbox)\s*\{|\\(?:text|mathrm|mbox)\s*\{\s)[^{}]*\}"
    r"(?:\^\{?[0-9]\}?)?$"
)
_MINUS = str.maketrans(dict.fromkeys("−–﹣－", "-"))
_NUMBER = re.compile(
    r"(?:(?<![\w)])-)?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
)
_BASED = re.compile(r"-?[0-9A-F.]*[0-9][0-9A-F.]*_[^_]+")
_BARE_LETTER = re.compile(
    # Lower-case ones stand in brackets or alone: "e.g. this" starts with none.
    rf"\(?([{LETTERS}])(?:[).:].*)?|(?i:\(([{LETTERS}])\)(?:[\s.:].*)?|([{LETTERS}])\)?)",
    re.DOTALL,
)
_SAID_LETTER = re.compile(
    r"(?i:(?:answer|\bcorrect\s+(?:option|choice))(?:\s+is\s*:?|\s*:)\s*(?:option|choice)?)\s*"
    # Without brackets, the article and the pronoun are no letters.
    rf"(?:\((?i:([{LETTERS}]))\)|([B-HJ])(?![\w'’])|([AI])(?![\w'’]|\s+[a-z]))"
)
_MARKED_LETTER = re.compile(rf"(?<!\w)[{LETTERS}][).:]", re.IGNORECASE)


def last_box(text: str) -> str | None:
    r"""What is inside the last ``\boxed{}`` of a text, by matching braces.

    None if there is no box, or the last one is not closed: whoever was cut off there has not
    answered.

    Example:
      >>> last_box(r"First \boxed{1}, no: \boxed{\frac{1}{2}} it is.")
      '\\frac{1}{2}'
    """
    start = None
    for found in re.finditer(r"\\boxed\s*\{", text):
        start = found.end()
    if start is None:
        return None
    depth, place = 1, start
    while place < len(text):
        if text[place] == "\\":
            # A brace behind a backslash is a sign of the answer itself.
            place += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
        place += 1
    return None


def tidied(answer: str) -> str:
    r"""An answer without what is typography alone: spacing commands, ``\dfrac``, dollar signs."""
    answer = answer.translate(_MINUS).replace("\\$", "").replace("$", "").replace("{,}", ",")
    answer = re.sub(r"(?<!\\)\\!|\\(?:left|right)(?![a-zA-Z])\.?", "", answer)
    answer = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", answer)
    answer = re.sub(r"^\\\((.*)\\\)$|^\\\[(.*)\\\]$", r"\1\2", answer.strip(), flags=re.DOTALL)
    return _SPACES.sub(" ", answer).strip().rstrip(".").strip()


def normalised(answer: str) -> str:
    r"""An answer as a string that equal answers share.

    Beyond typography: units after the answer, degrees, percent signs, commas between thousands and
    a ``x=`` before the answer are dropped, text commands unwrapped; ``1/2`` and ``\frac12`` become
    ``\frac{1}{2}``. These are the rules of Hendrycks et al. (2021, arXiv 2103.03874), with negative
    fractions and thousands added and without their table of units.

    Example:
      >>> normalised(r"x = -\dfrac 12\text{ cm}") == normalised("-1/2") == r"-\frac{1}{2}"
      True
    """
    answer = _UNIT.sub("", tidied(answer))
    answer = _TEXT.sub(r"\1", answer)
    answer = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\\?%", "", answer)
    # A command needs the space that ends it before a letter.
    answer = re.sub(r"(\\[a-zA-Z]+) (?=[a-zA-Z])", r"\1{}", answer).replace(" ", "")
    answer = re.sub(r"([_^])\{(\w)\}", r"\1\2", answer)
    answer = re.sub(r"\\sqrt(\w)", r"\\sqrt{\1}", answer)
    answer = re.sub(r"\\frac(\w)", r"\\frac{\1}", answer)
    answer = re.sub(r"(\\frac\{[^{}]*\})(\w)", r"\1{\2}", answer)
    answer = re.sub(r"^[a-zA-Z]=([^=]+)$", r"\1", answer)
    answer = re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", answer)
    answer = re.sub(r"^\\frac\{-(\d+)\}", r"-\\frac{\1}", answer)
    if re.fullmatch(r"-?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?", answer):
        answer = answer.replace(",", "")
    return re.sub(r"^(-?)\.(?=[0-9])", r"\g<1>0.", answer)


def equivalent(pair: tuple[str, str]) -> bool:
    r"""Whether math-verify takes an answer, the second, for the reference, the first.

    Both are the insides of boxes. A numeral with a base, such as ``2220_5``, is equal to nothing
    but the same string: math-verify would drop the base, and take 2220 or 2220_6 for it.

    It has no time limit, and needs one: see `experiments.llm.problems.workers.map_in_workers`.
    """
    from math_verify import parse, verify

    reference, answer = map(tidied, pair)
    if any(_BASED.fullmatch(normalised(side)) for side in (reference, answer)):
        return False
    # Its own time limits are alarms, which do not interrupt one long operation.
    gold, found = (
        parse(f"\\boxed{{{side}}}", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        for side in (reference, answer)
    )
    return bool(verify(gold, found, timeout_seconds=None))


def check_equivalent() -> None:
    """Load what `equivalent` needs, and see that it works, before time counts.

    Raises:
      RuntimeError: if it does not.
    """
    # It would warn that there is no time limit; the process has one.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    if not equivalent(("\\frac{1}{2}", "0.5")):
        raise RuntimeError("math-verify does not find 1/2 and 0.5 equal: is it another version?")


def last_number(text: str) -> Decimal | None:
    """The last number of a text; commas between thousands and dollar signs do not count."""
    text = text.translate(_MINUS).replace("$", "").replace("\\", "").replace("{,}", ",")
    found = _NUMBER.findall(text)
    return _to_decimal(found[-1]) if found else None


def marked_number(text: str) -> Decimal | None:
    """The number right after the last ``####``, as in GSM8K; None if there is none."""
    _, mark, after = text.rpartition("####")
    after = after.translate(_MINUS).replace("$", "").lstrip()
    found = _NUMBER.match(after) if mark else None
    return _to_decimal(found[0]) if found else None


def _to_decimal(number: str) -> Decimal:
    return Decimal(re.sub(r"[,\s]", "", number))


def chosen_letter(text: str) -> str | None:
    r"""The letter, A to J, that a text chooses.

    It is in the last box, else in the last "answer is (X)", else all there is: "B", "(b)." or, on
    one line without another option, "(B) a banana".

    Example:
      >>> chosen_letter(r"So \boxed{\text{(B)}}."), chosen_letter("Thus the answer is (C), a cat.")
      ('B', 'C')
    """
    box = last_box(text)
    if box is not None and (letter := bare_letter(box)):
        return letter
    text = text.replace("*", "").replace("$", "").strip()
    if found := _SAID_LETTER.findall(text):
        return "".join(found[-1]).upper()
    is_one = "\n" not in text and len(_MARKED_LETTER.findall(text)) <= 1
    return bare_letter(text) if is_one else None


def bare_letter(answer: str) -> str | None:
    """The letter of an answer that is one, or that starts with one as in "(B) a cat"; a capital."""
    found = _BARE_LETTER.fullmatch(_TEXT.sub(r"\1", tidied(answer)).strip())
    return found[found.lastindex or 0].upper() if found else None
