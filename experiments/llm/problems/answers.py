r"""Answers in a text: the last box, the number after ``####``, the letter of a choice.

Nothing here imports JAX, because `equivalent` runs in worker processes.
"""

from __future__ import annotations

import logging
import re
from decimal import Decimal

LETTERS = "ABCDEFGHIJ"

MOST_CHARACTERS = 2_000
"""Characters of an answer that math-verify is asked about; a longer one equals only itself."""

_SPACES = re.compile(r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~|\s+")
_BLANKS = re.compile(r"\s+")
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
    # Lower-case letters only in brackets or alone: "e.g. this" does not start with the letter E.
    rf"\(?([{LETTERS}])(?:[).:].*)?|(?i:\(([{LETTERS}])\)(?:[\s.:].*)?|([{LETTERS}])\)?)",
    re.DOTALL,
)
_SAID_LETTER = re.compile(
    r"(?i:(?:answer|\bcorrect\s+(?:option|choice))(?:\s+is\s*:?|\s*:)\s*(?:option|choice)?)\s*"
    # Without brackets, "a" and "I" before another word are an article and a pronoun.
    rf"(?:\((?i:([{LETTERS}]))\)|([B-HJ])(?![\w'’])|([AI])(?![\w'’]|\s+[a-z]))"
)
_MARKED_LETTER = re.compile(rf"(?<!\w)[{LETTERS}][).:]", re.IGNORECASE)


def last_box(text: str) -> str | None:
    r"""Contents of the last ``\boxed{}`` of a text, by matching braces.

    None if there is no box, or if the last one is not closed: a response that was cut off there
    has no answer.

    Example:
      >>> last_box(r"First \boxed{1}, no: \boxed{\frac{1}{2}} it is.")
      '\\frac{1}{2}'
    """
    start = None
    for opening in re.finditer(r"\\boxed\s*\{", text):
        start = opening.end()
    if start is None:
        return None
    # Walk to the brace that closes the box.
    depth, place = 1, start
    while place < len(text):
        if text[place] == "\\":
            # A brace after a backslash is a character of the answer.
            place += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
        place += 1
    return None


def final_answer(text: str) -> str:
    r"""What a response gives as its answer: all after the last ``####``, else the contents of the
    last box, else the whole response; without blanks around it.

    Example:
      >>> final_answer("3 + 4 = 7. #### 7"), final_answer(r"So \boxed{7}."), final_answer(" 7\n")
      ('7', '7', '7')
    """
    _, mark, after = text.rpartition("####")
    box = last_box(text)
    return (after if mark else text if box is None else box).strip()


def tidied(answer: str) -> str:
    r"""Remove typography from an answer: spacing commands, ``\dfrac``, dollar signs."""
    answer = answer.translate(_MINUS).replace("\\$", "").replace("$", "").replace("{,}", ",")
    answer = re.sub(r"(?<!\\)\\!|\\(?:left|right)(?![a-zA-Z])\.?", "", answer)
    answer = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", answer)
    answer = re.sub(r"^\\\((.*)\\\)$|^\\\[(.*)\\\]$", r"\1\2", answer.strip(), flags=re.DOTALL)
    return _SPACES.sub(" ", answer).strip().rstrip(".").strip()


def normalised(answer: str) -> str:
    r"""Rewrite an answer so that equal answers become equal strings.

    Besides typography it drops units after the answer, degrees, percent signs, commas between
    thousands and ``x=`` before the answer, unwraps text commands, and turns ``1/2`` and ``\frac12``
    into ``\frac{1}{2}``. These are the rules of Hendrycks et al. (2021, arXiv 2103.03874), with
    negative fractions and thousands added and without their table of units.

    Example:
      >>> normalised(r"x = -\dfrac 12\text{ cm}") == normalised("-1/2") == r"-\frac{1}{2}"
      True
    """
    answer = _UNIT.sub("", tidied(answer))
    answer = _TEXT.sub(r"\1", answer)
    answer = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree|\\?%", "", answer)
    # The space between a command and a letter ends the command: replace it by braces.
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
    r"""Return whether math-verify finds a reference and an answer equal.

    A numeral with a base, such as ``2220_5``, equals only the same string. Math-verify would drop
    the base and accept 2220 or 2220_6 for it.

    Math-verify may take very long. Call this function under a time limit, see
    `experiments.llm.problems.workers.map_in_workers`.

    Args:
      pair: the reference and the answer, both contents of boxes.
    """
    from math_verify import parse, verify

    reference, answer = map(tidied, pair)
    if max(len(reference), len(answer)) > MOST_CHARACTERS:
        return False
    if any(_BASED.fullmatch(normalised(side)) for side in (reference, answer)):
        return False
    # Math-verify's own time limits are alarms, which do not interrupt a single long operation.
    parsed_reference, parsed_answer = (
        parse(f"\\boxed{{{side}}}", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
        for side in (reference, answer)
    )
    return bool(verify(parsed_reference, parsed_answer, timeout_seconds=None))


def check_equivalent() -> None:
    """Load math-verify and check that it works, before the time of answers is counted.

    Raises:
      RuntimeError: if it does not work.
    """
    # It would warn that it has no time limit; the process has one.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    if not equivalent(("\\frac{1}{2}", "0.5")):
        raise RuntimeError("math-verify does not find 1/2 and 0.5 equal: is it another version?")


def last_number(text: str) -> Decimal | None:
    """Last number of a text; commas between thousands and dollar signs are ignored."""
    text = text.translate(_MINUS).replace("$", "").replace("\\", "").replace("{,}", ",")
    numbers = _NUMBER.findall(text)
    return _to_decimal(numbers[-1]) if numbers else None


def marked_number(text: str) -> Decimal | None:
    """Number right after the last ``####``, as in GSM8K; None if there is none."""
    _, mark, after = text.rpartition("####")
    after = after.translate(_MINUS).replace("$", "").lstrip()
    number = _NUMBER.match(after) if mark else None
    return _to_decimal(number[0]) if number else None


def _to_decimal(number: str) -> Decimal:
    return Decimal(re.sub(r"[,\s]", "", number))


def chosen_letter(text: str) -> str | None:
    r"""Letter, A to J, that a text chooses.

    It is taken from the last box, else from the last "answer is (X)", else from a text that is only
    a letter ("B", "(b)."), or one line with a single option ("(B) a banana").

    Example:
      >>> chosen_letter(r"So \boxed{\text{(B)}}."), chosen_letter("Thus the answer is (C), a cat.")
      ('B', 'C')
    """
    box = last_box(text)
    if box is not None and (letter := bare_letter(box)):
        return letter
    # One blank or line break in place of many: patterns try every way to share out a run of blanks.
    text = _BLANKS.sub(_one_blank, text.replace("*", "").replace("$", "").strip())
    if stated := _SAID_LETTER.findall(text):
        return "".join(stated[-1]).upper()
    is_one = "\n" not in text and len(_MARKED_LETTER.findall(text)) <= 1
    return bare_letter(text) if is_one else None


def _one_blank(blanks: re.Match[str]) -> str:
    return "\n" if "\n" in blanks[0] else " "


def bare_letter(answer: str) -> str | None:
    """Capital letter of an answer that is a letter, or starts with one as in "(B) a cat"."""
    match = _BARE_LETTER.fullmatch(_TEXT.sub(r"\1", tidied(answer)).strip())
    return match[match.lastindex or 0].upper() if match else None
