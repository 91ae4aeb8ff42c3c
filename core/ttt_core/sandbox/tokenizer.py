"""The sandbox tokenizer: one token a word of the registry, bytes for everything else.

A byte-level BPE as in Qwen, with two differences. A space belongs to the word *before* it, so
that a word has the same token at the beginning of a line and within a question. And whole words are
looked up first (`ignore_merges`); only what is no word of the sandbox is built from fragments and
bytes.
"""

from functools import cache
from importlib.resources import files

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ttt_core.sandbox.words import adjectives, common, nouns, places

IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END)

PIECES = r"\p{L}+ ?|\p{N}|[^\s\p{L}\p{N}]+ ?|\n| +|\s"
"""Words, digits, punctuation and newlines, one by one. A newline never joins its neighbours, so
that a document's tokens don't depend on what follows it."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def build_tokenizer(*, model_max_length: int) -> PreTrainedTokenizerFast:
    """Build the tokenizer from the word lists; the same lists always give the same ids."""
    merges = _merges()
    vocabulary = {piece: index for index, piece in enumerate(_pieces(merges))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return chat_tokenizer(core, model_max_length=model_max_length)


def chat_tokenizer(core: Tokenizer, *, model_max_length: int) -> PreTrainedTokenizerFast:
    """Add to a byte-level tokenizer what a chat needs: decoder, control tokens, template."""
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=model_max_length,
    )


def _pieces(merges: list[tuple[str, str]]) -> list[str]:
    """List the vocabulary in order, each piece once: bytes, fragments, words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fragments = [left + right for left, right in merges]
    return list(dict.fromkeys([*alphabet, *fragments, *map(_byte_level, word_pieces())]))


def word_pieces() -> list[str]:
    """List the words as they stand in a text, with the space that belongs to them."""
    registry = [*(f"{word} " for word in adjectives()), *nouns(), *places(), ": "]
    usual = [form for word in common() for form in (f"{word} ", word)]
    first = [f"{word.capitalize()} " for word in common()]
    return [*registry, *usual, *first]


def _byte_level(text: str) -> str:
    """Spell `text` as byte-level BPE does."""
    [(piece, _)] = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    ).pre_tokenize_str(text)
    return piece


@cache
def _fragments() -> str:
    return files(__package__).joinpath("fragments.txt").read_text(encoding="utf-8")


def _merges() -> list[tuple[str, str]]:
    """Read the frequent fragments of English and Python, as BPE merges in order."""
    pairs = (line.split(" ") for line in _fragments().splitlines())
    return [(left, right) for left, right in pairs]
