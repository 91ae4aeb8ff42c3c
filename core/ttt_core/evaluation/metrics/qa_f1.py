"""Words in common: the F1 of question answering, as SQuAD defined it, and its variants.

Verified against the published code of LongBench (`metrics.py` of THUDM/LongBench). ZeroScrolls'
F1 also turns letters into ASCII (section 3.3 of arXiv 2305.14196; its code uses Unidecode).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from ttt_core.evaluation.metrics.chinese import chinese_words

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _chinese_punctuation() -> str:
    """Return what LongBench leaves out; the bracket U+300A is not in its list, and stays."""
    ranges = (
        (0xFF01, 0xFF0D), (0xFF0F, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF64),
        (0x3001, 0x3003), (0x300B, 0x3011), (0x3014, 0x301F), (0x3030, 0x3030), (0x303E, 0x303F),
        (0x2013, 0x2014), (0x2018, 0x2019), (0x201B, 0x201F), (0x2026, 0x2027), (0xFE4F, 0xFE4F),
    )  # fmt: skip
    return "".join(chr(code) for first, last in ranges for code in range(first, last + 1))


_NO_CHINESE_PUNCTUATION = str.maketrans("", "", string.punctuation + _chinese_punctuation())

_LETTERS = {"æ": "ae", "ð": "d", "ø": "o", "þ": "th", "đ": "d", "ħ": "h", "\u0131": "i", "ł": "l"}
_NO_ACCENTS = str.maketrans(_LETTERS | {"œ": "oe", "ß": "ss", "ŧ": "t"})
"""Letters that are not a plain one with an accent."""


def normalised(text: str) -> str:
    """Lower the case and leave out punctuation, articles and extra white space."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def overlap_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Return the F1 of two lists of words, each as often as it occurs; 0 if one is empty."""
    common = (Counter(answer) & Counter(reference)).total()
    if not common:
        return 0.0
    precision, recall = common / len(answer), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def qa_f1(answer: str, reference: str) -> float:
    """Return the F1 of the normalised words (SQuAD, arXiv 1606.05250; LongBench)."""
    return overlap_f1(normalised(answer).split(), normalised(reference).split())


def qa_f1_ascii(answer: str, reference: str) -> float:
    """Return the F1 of the normalised words, without accents (ZeroScrolls).

    Accents and ligatures of Latin letters are resolved as Unidecode does; other alphabets, which
    it transliterates, stay as they are. Both sides are treated alike, so that only texts of
    different alphabets could score differently.
    """
    return overlap_f1(_ascii(normalised(answer)).split(), _ascii(normalised(reference)).split())


def qa_f1_chinese(answer: str, reference: str) -> float:
    """Return the F1 of the words that jieba finds, without punctuation (LongBench).

    Raises:
        ConfigError: jieba is not installed.
    """
    return overlap_f1(_chinese(answer), _chinese(reference))


def _ascii(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.translate(_NO_ACCENTS))
    return "".join(mark for mark in apart if not unicodedata.combining(mark))


def _chinese(text: str) -> list[str]:
    """Cut first, then normalise each word: what the punctuation kept apart stays apart."""
    cleaned = (
        "".join(word.lower().translate(_NO_CHINESE_PUNCTUATION).split())
        for word in chinese_words(text)
    )
    return [word for word in cleaned if word]
