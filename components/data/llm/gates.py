"""Cheap gates after every answer, before the next stage is paid for.

Rules look at one text and give the first `Problem` they find. They are no judges of truth; that is
the verifier's part.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from data_contracts.reasons import DescribeReason

ECHO_WORDS = 8  # so many words in a row from our own instructions are no coincidence
MIN_WORDS_TO_JUDGE_LANGUAGE = 4
LAST_LATIN = 0x24F  # last code point of Latin Extended-B
MAX_FOREIGN_SHARE = 0.2  # a caption may quote what is written on a sign
LANGUAGE_MARGIN = 8.0  # in the identifier's log-probability; short English texts score close

REFUSAL = re.compile(
    r"^\W*(i'?m|i am|we are)? ?(sorry|unable)\b|\bas an? (ai|artificial|language model)\b"
    r"|\bi (can ?not|can't|am unable to|am not able to|won't) "
    r"(assist|help|provide|describe|see|view|identify|fulfil|comply|process|continue)"
    r"|\bno (image|picture|photograph) (was |is )?(provided|given|attached)",
    re.IGNORECASE,
)
MARKUP = re.compile(
    r"<[a-z/!?][^>]*>|&(?:[a-z]{2,8}|#x?[0-9a-f]{1,6});|https?:|www\.\w|\w\.(?:com|net|org|io)\b"
    r"|javascript:|```|\*\*|\]\(|^\s*#|[{}]|\\[nu]",
    re.IGNORECASE,
)
INJECTION = re.compile(
    r"\b(ignore|disregard|forget|override)\b.{0,30}\b(instructions?|prompts?|rules|above|previous)\b"
    r"|\bsystem prompt\b|\byou are now\b|\bnew instructions\b|<\||\[/?inst\]|\buntrusted\b"
    r"|^(system|assistant|user|human)\s*:|\bas (you )?(requested|instructed)\b",
    re.IGNORECASE,
)
LONG_RUN = re.compile(r"(\S)\1{9,}")


@dataclass(frozen=True)
class Problem:
    """What is wrong with a text: a short code, words, and whether asking again may mend it."""

    reason: str
    detail: str
    is_repairable: bool = False


class DroppedError(Exception):
    """A region cannot go on, because of this problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.reason}: {problem.detail}")
        self.problem = problem


@dataclass(frozen=True)
class TextRules:
    """Bounds for one text of an answer."""

    name: str
    min_words: int
    max_words: int


def find_problem(text: str, rules: TextRules, instructions: str) -> Problem | None:
    """The first problem of a text, or None."""
    checks: tuple[Callable[[], Problem | None], ...] = (
        lambda: _matches(text, REFUSAL, DescribeReason.REFUSAL),
        lambda: _matches(text, INJECTION, DescribeReason.PROMPT_INJECTION),
        lambda: _echoes(text, instructions),
        lambda: _matches(text, MARKUP, DescribeReason.MARKUP),
        lambda: _repeats(text),
        lambda: _wrong_language(text),
        lambda: _wrong_length(text, rules),
    )
    return next((problem for check in checks if (problem := check())), None)


def _matches(text: str, pattern: re.Pattern[str], reason: str) -> Problem | None:
    found = pattern.search(text)
    return Problem(reason, f"found '{found[0].strip()[:60]}'") if found else None


def _echoes(text: str, instructions: str) -> Problem | None:
    shared = _word_runs(text) & _instruction_runs(instructions)
    return (
        Problem(DescribeReason.PROMPT_ECHO, f"repeats the prompt: '{min(shared)}'")
        if shared
        else None
    )


@lru_cache(maxsize=64)
def _instruction_runs(instructions: str) -> frozenset[str]:
    # An example caption in the instructions may be quoted by chance; the rules may not.
    return frozenset(_word_runs(re.sub(r'"[^"]*"', " | ", instructions)))


def _word_runs(text: str) -> set[str]:
    words = re.findall(r"[\w']+|\|", text.lower())
    runs = (words[i : i + ECHO_WORDS] for i in range(len(words) - ECHO_WORDS + 1))
    return {" ".join(run) for run in runs if "|" not in run}


def _repeats(text: str) -> Problem | None:
    """A model caught in a loop repeats a word, a run of words or a character."""
    words = re.findall(r"\w+", text.lower())
    threes = list(zip(words, words[1:], words[2:], strict=False))
    if len(set(threes)) == len(threes) and not LONG_RUN.search(text):
        return None  # the usual case: every loop has some three words twice
    for size, limit in ((1, 4), (2, 3), (3, 3), *((size, 2) for size in range(5, 16))):
        runs = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
        for i in range(max(len(runs) - size * (limit - 1), 0)):
            if all(runs[i] == runs[i + size * k] for k in range(1, limit)):
                return Problem(
                    DescribeReason.REPETITION, f"'{' '.join(runs[i])}' {limit} times in a row"
                )
    fours = Counter(" ".join(words[i : i + 4]) for i in range(len(words) - 3))
    for run, count in fours.most_common(1):
        if count >= 4:
            return Problem(DescribeReason.REPETITION, f"'{run}' {count} times")
    long_run = LONG_RUN.search(text)
    return Problem(DescribeReason.REPETITION, f"a run of '{long_run[1]}'") if long_run else None


def _wrong_language(text: str) -> Problem | None:
    if not text.isascii():
        letters = [char for char in text if char.isalpha()]
        num_foreign = sum(ord(char) > LAST_LATIN for char in letters)
        if num_foreign > MAX_FOREIGN_SHARE * len(letters):
            detail = f"{num_foreign} of {len(letters)} letters are not Latin"
            return Problem(DescribeReason.WRONG_LANGUAGE, detail)
    for sentence in re.split(r"(?<=[.!?;])\s+", text):
        if len(sentence.split()) >= MIN_WORDS_TO_JUDGE_LANGUAGE:
            language, margin = identify_language(sentence)
            if language != "en" and margin > LANGUAGE_MARGIN:
                return Problem(
                    DescribeReason.WRONG_LANGUAGE, f"'{sentence[:60]}' looks like {language}"
                )
    return None


def identify_language(text: str) -> tuple[str, float]:
    """The likeliest language of a text and by how much it is likelier than English."""
    import py3langid  # loads its model when it is first asked

    if py3langid.classify(text)[0] == "en":  # much faster than the ranking
        return "en", 0.0
    ranking = py3langid.rank(text)
    english = next(score for language, score in ranking if language == "en")
    return ranking[0][0], float(ranking[0][1] - english)


def _wrong_length(text: str, rules: TextRules) -> Problem | None:
    num_words = len(text.split())
    if num_words < rules.min_words:
        detail = f"{rules.name} has {num_words} words, at least {rules.min_words} are needed"
        return Problem(DescribeReason.TOO_SHORT, detail, is_repairable=True)
    if num_words > rules.max_words:
        detail = f"{rules.name} has {num_words} words, at most {rules.max_words} are allowed"
        return Problem(DescribeReason.TOO_LONG, detail, is_repairable=True)
    return None
