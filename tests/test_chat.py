"""Messages to tokens: prefix and suffix together are what the model's own template gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from ttt_core import ConfigError, Document, DocumentError, UnsupportedModelError
from ttt_core.chat import NO_PREFIX, SEAM, ChatFormat, as_messages, split_system
from ttt_core.supervision import TokenizedDocument

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (  # Trims contents, prints a date, writes the BOS itself.
    "{{ bos_token }}{% if not date_string is defined %}"
    "{% set date_string = strftime_now('%d %b %Y %H:%M:%S') %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|im_start|>system:\n\nToday Date: {{ date_string }}\n\n{{ system }}<|im_end|>"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}:\n\n{{ m['content'] | trim }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:\n\n{% endif %}"
)
GEMMA = (  # No system role, strict alternation, trims.
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
MISTRAL = (  # The system prompt goes into the last user turn.
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% endif %}{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}[INST] {% if loop.last and system is defined %}"
    "{{ system + '\n\n' }}{% endif %}{{ m['content'] }}[/INST]"
    "{% else %} {{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
QWEN3 = (  # Strips reasoning from earlier answers; opens with empty reasoning when told to.
    "{% for m in messages %}{% set content = m['content'] %}"
    "{% if m['role'] == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "llama": LLAMA,
    "gemma": GEMMA,
    "mistral": MISTRAL,
    "qwen3": QWEN3,
    "none": None,
}
FOLDING = {"gemma", "mistral"}

DOCUMENT = "the cat sat.\n\nThe theme: the sea.\n  the end"
TURNS = [
    {"role": "user", "content": "the first question?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nthe answer."},
    {"role": "user", "content": "  And then?\n"},
]

Make = Callable[..., PreTrainedTokenizerFast]

many_texts = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
"""`make_tokenizer` is a function; it doesn't matter that all examples share it."""


@cache
def build_once(make: Make, template: str) -> tuple[PreTrainedTokenizerFast, ChatFormat]:
    tokenizer = make(template)
    return tokenizer, ChatFormat(tokenizer)


@pytest.fixture(params=list(TEMPLATES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(name: str, make_tokenizer: Make) -> PreTrainedTokenizerFast:
    return make_tokenizer(TEMPLATES[name])


def render(
    tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]], *, tokenize: bool
) -> Any:
    """What the template itself makes of the whole conversation."""
    chat = ChatFormat(tokenizer)
    return tokenizer.apply_chat_template(
        messages,
        chat_template=chat.template,
        tokenize=tokenize,
        add_generation_prompt=True,
        return_dict=False,
        enable_thinking=False,
        date_string="01 Jan 2025",
    )


def with_document(
    turns: list[dict[str, Any]], document: str, system: str | None, *, fold: bool
) -> list[dict[str, Any]]:
    """The conversation as a person would write it out, document at the head of the first turn."""
    first = f"{document}{SEAM}{turns[0]['content']}"
    if system is None:
        return [{**turns[0], "content": first}, *turns[1:]]
    if fold:
        return [{**turns[0], "content": f"{system}{SEAM}{first}"}, *turns[1:]]
    opening = {"role": "system", "content": system}
    return [opening, {**turns[0], "content": first}, *turns[1:]]


@pytest.mark.parametrize("system", [None, "Be brief."], ids=["no-system", "system"])
@pytest.mark.parametrize("n_turns", [1, 3], ids=["question", "conversation"])
def test_prefix_and_suffix_are_the_whole_conversation(
    name: str, tokenizer: PreTrainedTokenizerFast, system: str | None, n_turns: int
) -> None:
    chat, turns = ChatFormat(tokenizer), TURNS[:n_turns]
    prefix = chat.prefix(DOCUMENT, system=system)
    suffix = chat.suffix(prefix, turns)
    messages = with_document(turns, DOCUMENT, system, fold=name in FOLDING)
    assert [*prefix.input_ids, *suffix] == render(tokenizer, messages, tokenize=True)


def test_without_a_document_the_suffix_is_the_whole_conversation(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    suffix = ChatFormat(tokenizer).suffix(NO_PREFIX, TURNS)
    assert suffix == render(tokenizer, TURNS, tokenize=True)


def test_system_prompt_stands_before_the_document(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    prefix = ChatFormat(tokenizer).prefix(DOCUMENT, system="Be brief.")
    assert prefix.text.count("Be brief.") == 1
    assert 0 <= prefix.text.find("Be brief.") < prefix.text.find(DOCUMENT)


def test_document_start_points_at_the_document(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    document = "Cats sat.\n\nThe end"
    prefix = ChatFormat(tokenizer).prefix(document, system="Be brief.")
    inside = tokenizer.decode(list(prefix.input_ids[prefix.document_start :]))
    assert inside == document + SEAM


def test_nothing_merges_across_the_seam(make_tokenizer: Make) -> None:
    """The tokenizer has a token for three newlines; a question that begins with one is cut off."""
    tokenizer = make_tokenizer(CHATML)
    chat = ChatFormat(tokenizer)
    prefix = chat.prefix("Cats sat.")
    suffix = chat.suffix(prefix, as_messages("\nWhy?"))
    assert tokenizer.decode([prefix.input_ids[-1]]) == SEAM
    assert tokenizer.decode(suffix).startswith("\nWhy?")
    whole = render(
        tokenizer,
        with_document(as_messages("\nWhy?"), "Cats sat.", None, fold=False),
        tokenize=True,
    )
    assert [*prefix.input_ids, *suffix] != whole  # The trap is really there.


@pytest.mark.parametrize("question", ["", "Why?", "\n\nWhy?", "the cat", "\u27eaquestion\u27eb"])
def test_prefix_is_the_beginning_whatever_is_asked(
    name: str, tokenizer: PreTrainedTokenizerFast, question: str
) -> None:
    """Also with nothing asked, which is how clozes are trained, on templates that trim."""
    chat = ChatFormat(tokenizer)
    prefix = chat.prefix(DOCUMENT)
    suffix = chat.suffix(prefix, [{"role": "user", "content": question}])
    text = tokenizer.decode([*prefix.input_ids, *suffix])
    assert text.startswith(prefix.text)
    assert text.removeprefix(prefix.text).startswith(question)


def test_clozes_stand_where_answers_will(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    """`answer_start` ends as every suffix ends, and never opens a second turn of the user."""
    chat = ChatFormat(tokenizer)
    prefix = chat.prefix(DOCUMENT)
    document = TokenizedDocument.of(prefix, chat, tokenizer)
    asked = chat.suffix(prefix, as_messages("Why?"))
    start = tokenizer.decode(list(document.answer_start))
    assert start
    assert tokenizer.decode(asked).replace("Why?", "", 1) == start


def test_conversation_goes_on_behind_the_same_prefix(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    chat = ChatFormat(tokenizer)
    prefix = chat.prefix(DOCUMENT)
    first, later = chat.suffix(prefix, TURNS[:1]), chat.suffix(prefix, TURNS)
    text = tokenizer.decode(later)
    assert len(later) > len(first)
    assert "the first question?" in text
    assert "the answer." in text
    assert "hm" not in text or name != "qwen3"
    assert "cat sat" not in text


def test_date_in_the_template_stands_still(make_tokenizer: Make) -> None:
    chat = ChatFormat(make_tokenizer(LLAMA))
    assert "Today Date: 01 Jan 2025\n" in chat.prefix(DOCUMENT).text


def test_template_variables_can_be_set(make_tokenizer: Make) -> None:
    chat = ChatFormat(make_tokenizer(LLAMA), {"date_string": "02 Feb 2026"})
    assert "Today Date: 02 Feb 2026\n" in chat.prefix(DOCUMENT).text


@pytest.mark.parametrize("template", [None, LLAMA], ids=["plain", "bos-in-template"])
def test_exactly_one_bos(make_tokenizer: Make, template: str | None) -> None:
    """Whether the tokenizer adds one by itself or the template writes it."""
    tokenizer = make_tokenizer(template)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    chat = ChatFormat(tokenizer)
    prefix = chat.prefix(DOCUMENT)
    ids = [*prefix.input_ids, *chat.suffix(prefix, TURNS)]
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert chat.suffix(NO_PREFIX, TURNS).count(tokenizer.bos_token_id) == 1


def test_plain_template_adds_no_bos_of_its_own(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None)
    assert tokenizer.bos_token_id not in ChatFormat(tokenizer).prefix(DOCUMENT).input_ids


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama 2: a space is put before every text, and single characters fall back to bytes."""
    pieces = [
        "<s>",
        "</s>",
        "\u2581",
        *map(chr, range(33, 127)),
        *(f"<0x{i:02X}>" for i in range(256)),
    ]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    for merged in ("\u2581W", "\u2581t"):
        vocabulary[merged] = len(vocabulary)
    merges = [("\u2581", "W"), ("\u2581", "t")]
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    core.add_special_tokens([AddedToken(text, special=True) for text in ("<s>", "</s>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    fast.chat_template = MISTRAL.replace("<|im_end|>", "</s>")
    return fast


@pytest.mark.parametrize("question", ["Why?", "to be?", " two  spaces"])
def test_leading_space_of_sentencepiece_is_not_put_at_the_seam(question: str) -> None:
    tokenizer = sentencepiece_like()
    chat = ChatFormat(tokenizer)
    prefix = chat.prefix(DOCUMENT)
    messages = with_document(as_messages(question), DOCUMENT, None, fold=True)
    whole = render(tokenizer, messages, tokenize=True)
    assert [*prefix.input_ids, *chat.suffix(prefix, as_messages(question))] == whole


MARKERS = ("<|im_end|>", "<|im_start|>", "<s>", "<pad>", "<|im_", "im", "|", "<think>", "</think>")
OTHERS = (
    "[/INST]",
    "the",
    "a",
    "st",
    "user",
    "assistant",
    "\n",
    " ",
    "\u27eaquestion\u27eb",
    "\u4e2d",
)
WORDS = st.sampled_from(MARKERS + OTHERS)
TEXTS = st.lists(WORDS | st.text(st.characters(exclude_categories=["Cs"])), max_size=5).map("".join)


def normal(text: str) -> str:
    try:
        return Document.of(text).text
    except DocumentError:
        assume(False)
        raise


@pytest.mark.parametrize("template", [CHATML, LLAMA, MISTRAL], ids=["chatml", "llama", "mistral"])
@many_texts
@given(document=TEXTS, question=TEXTS)
def test_prefix_and_suffix_decode_to_the_rendered_text(
    make_tokenizer: Make, template: str, document: str, question: str
) -> None:
    tokenizer, chat = build_once(make_tokenizer, template)
    document = normal(document)
    assume(question.strip())
    prefix = chat.prefix(document)
    turns = [{"role": "user", "content": question}]
    ids = [*prefix.input_ids, *chat.suffix(prefix, turns)]
    messages = with_document(turns, document, None, fold=True)
    assert decode(tokenizer, prefix.input_ids) == prefix.text.replace("\ufdd0", "")
    assert decode(tokenizer, ids) == render(tokenizer, messages, tokenize=False)


def pieces(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[int | str]:
    """Control tokens as they are, and the texts between them."""
    special = set(tokenizer.all_special_ids)
    runs: list[int | str] = []
    for is_special, run in groupby(ids, key=special.__contains__):
        tokens = list(run)
        runs += tokens if is_special else [decode(tokenizer, tokens)]
    return runs


def check_control_tokens(
    tokenizer: PreTrainedTokenizerFast,
    chat: ChatFormat,
    document: str | None,
    contents: Sequence[str],
) -> None:
    """Whatever is read and typed: the control tokens are those of a harmless conversation."""
    typed = [document or "", *contents]
    seen = list(typed)
    if chat.template == QWEN3:
        seen[2] = drop_reasoning(seen[2])
    if chat.template == LLAMA:  # Trims, document and first question as one.
        seen[1:] = [text.strip() for text in contents]
        if document:
            seen[:2] = document.lstrip(), contents[0].rstrip()

    def ids(texts: Sequence[str]) -> list[int]:
        prefix = NO_PREFIX if document is None else chat.prefix(texts[0])
        roles = ("user", "assistant", "user")
        turns = [{"role": r, "content": c} for r, c in zip(roles, texts[1:], strict=True)]
        return [*prefix.input_ids, *chat.suffix(prefix, turns)]

    expected = pieces(tokenizer, ids(PLACEHOLDERS))
    for placeholder, text in zip(PLACEHOLDERS, seen, strict=True):
        expected = [p.replace(placeholder, text) if isinstance(p, str) else p for p in expected]
    assert pieces(tokenizer, ids(typed)) == expected


PLACEHOLDERS = ("\ue000", "\ue001", "\ue002", "\ue003")


def drop_reasoning(text: str) -> str:
    return text.split("</think>")[-1].lstrip("\n") if "</think>" in text else text


@pytest.mark.parametrize("template", [CHATML, LLAMA, QWEN3], ids=["chatml", "llama", "qwen3"])
@many_texts
@given(contents=st.tuples(TEXTS, TEXTS, TEXTS), document=st.none() | TEXTS)
def test_control_tokens_come_from_the_template_alone(
    make_tokenizer: Make, template: str, contents: tuple[str, str, str], document: str | None
) -> None:
    assume(all(drop_reasoning(content).strip() for content in contents))
    document = None if document is None else normal(document)
    check_control_tokens(*build_once(make_tokenizer, template), document, contents)


def decode(tokenizer: PreTrainedTokenizerFast, ids: Any) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


@pytest.mark.parametrize(
    "contents",
    [("hi", "s", "x<|im_end|>y"), ("hi", "ok", "<|im_end|>"), ("hi", "<think>hm</think>ok", "<s>")],
    ids=["answer-inside-a-marker", "typed-marker-alone", "rewritten-answer"],
)
def test_literal_text_is_found_where_it_stands(
    make_tokenizer: Make, contents: tuple[str, str, str]
) -> None:
    """Contents that also occur in the template's own text, or that the template rewrites."""
    check_control_tokens(*build_once(make_tokenizer, QWEN3), "D", contents)


def test_special_tokens_without_a_role_stay_literal_too(make_tokenizer: Make) -> None:
    """Llama 3 marks `<|start_header_id|>` as special without naming it bos, eos or extra."""
    tokenizer = make_tokenizer(CHATML)
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken("<|header|>", special=True)])
    control = tokenizer.convert_tokens_to_ids("<|header|>")
    chat = ChatFormat(tokenizer)
    prefix = chat.prefix("text <|header|> text")
    suffix = chat.suffix(prefix, as_messages("what is <|header|>?"))
    assert control in tokenizer("<|header|>")["input_ids"]
    assert control not in [*prefix.input_ids, *suffix]


def test_other_system_prompt_is_refused(make_tokenizer: Make) -> None:
    chat = ChatFormat(make_tokenizer(CHATML))
    prefix = chat.prefix(DOCUMENT, system="Be brief.")
    question = {"role": "user", "content": "Why?"}
    same = chat.suffix(prefix, [{"role": "system", "content": "Be brief."}, question])
    assert same == chat.suffix(prefix, [question])
    with pytest.raises(ConfigError, match="system prompt differs"):
        chat.suffix(prefix, [{"role": "system", "content": "Be long."}, question])


def test_conversation_without_turns_is_refused(make_tokenizer: Make) -> None:
    chat = ChatFormat(make_tokenizer(CHATML))
    with pytest.raises(ConfigError, match="no message"):
        chat.suffix(chat.prefix(DOCUMENT), [])
    with pytest.raises(ConfigError, match="no message"):
        chat.suffix(NO_PREFIX, [{"role": "system", "content": "Be brief."}])


@pytest.mark.parametrize(
    "template",
    ["{% for m in messages %}{{ m['role'] }}{% endfor %}", "{{ messages[0]['content'] | upper }}"],
    ids=["drops", "rewrites"],
)
def test_template_that_loses_the_message_is_refused(make_tokenizer: Make, template: str) -> None:
    with pytest.raises(UnsupportedModelError, match="chat template"):
        ChatFormat(make_tokenizer(template)).prefix(DOCUMENT)


def test_template_that_changes_old_turns_is_refused(make_tokenizer: Make) -> None:
    """Such a template would need the document's keys and values computed anew every turn."""
    template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}|{% endfor %}"
    chat = ChatFormat(make_tokenizer(template))
    prefix = chat.prefix(DOCUMENT)
    assert chat.suffix(prefix, TURNS[:1])
    with pytest.raises(UnsupportedModelError, match="goes on"):
        chat.suffix(prefix, TURNS)


def test_two_questions_in_a_row_are_one_turn(make_tokenizer: Make) -> None:
    chat = ChatFormat(make_tokenizer(GEMMA))
    prefix = chat.prefix(DOCUMENT)
    split = chat.suffix(prefix, [*as_messages("Who?"), *as_messages("Why?")])
    assert split == chat.suffix(prefix, as_messages("Who?\n\nWhy?"))


def test_callers_messages_are_left_alone(make_tokenizer: Make) -> None:
    chat = ChatFormat(make_tokenizer(GEMMA))
    turns = [dict(turn) for turn in TURNS]
    chat.suffix(chat.prefix(DOCUMENT, system="Be brief."), turns)
    assert turns == TURNS


def test_split_system_joins_the_leading_ones() -> None:
    system = [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}]
    assert split_system([*system, *TURNS]) == ("a\n\nb", TURNS)
    assert split_system(TURNS) == (None, TURNS)


def test_blank_question_is_refused() -> None:
    with pytest.raises(ConfigError, match="empty"):
        as_messages(" \n")
