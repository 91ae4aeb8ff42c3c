"""Words of Chinese text, which has no spaces between them."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

from ttt_core.extras import library


def chinese_words(text: str) -> list[str]:
    """Cut text into words with jieba's default dictionary; joined, they are the text again.

    The first call of a process reads the dictionary, about a second.

    Raises:
        ConfigError: jieba is not installed.
    """
    return list(_tokenizer().cut(text, cut_all=False))


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Escapes in jieba's source that Python means to forbid.
        jieba = library("jieba", "jieba", "scoring Chinese answers")
    tokenizer = jieba.Tokenizer()
    # What `initialize` does, without its cache: a file of a known name in the common temporary
    # folder, which anybody on this machine may have put there.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer
