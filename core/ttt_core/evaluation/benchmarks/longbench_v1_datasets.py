# ruff: noqa: RUF001  (full-width punctuation of Chinese prompts)
"""The 21 data sets of LongBench: prompt, room for an answer, metric, and where the document is.

Prompts, numbers of tokens and metrics are those of THUDM/LongBench (`config/dataset2prompt.json`,
`config/dataset2maxlen.json`, `eval.py`), read there. The stored version of the second file lacks
multi_news, samsum and passage_retrieval_en and _zh; these four (512, 128, 32, 32) are as ten public
copies of the finished file have them.

The few-shot tasks ask about one more item: that is the request, and the examples are the document.
Only triviaqa's last item comes with a passage of its own to read, which is part of the document.
"""

from __future__ import annotations

from ttt_core.evaluation.benchmarks.longbench_v1_dataset import Dataset

_PASSAGES = "Answer the question based on the given passages."
_ONLY = "Only give me the answer and do not output any other words."
_MULTI_HOP = (
    f"{_PASSAGES} {_ONLY}\n\nThe following are given passages.\n{{context}}\n\n"
    f"{_PASSAGES} {_ONLY}\n\nQuestion: {{input}}\nAnswer:"
)
_MULTI_HOP_HEAD, _MULTI_HOP_TAIL = f"{_ONLY}\n\n", f"\n\n{_PASSAGES}"

_CONCISELY = "as concisely as you can, using a single phrase if possible. Do not provide any"
_QASPER = (
    "as concisely as you can, using a single phrase or sentence if possible. If the question "
    "cannot be answered based on the information in the article, write \"unanswerable\". If the "
    "question is a yes/no question, answer \"yes\", \"no\", or \"unanswerable\". Do not provide "
    "any explanation."
)  # fmt: skip
_NO_EXPLANATION = "Do not provide any explanation.\n\n"
_CODE = "Please complete the code given below. \n"
_NEXT_LINE = "Next line of code:\n"


def _multi_hop() -> Dataset:
    return Dataset(_MULTI_HOP, 32, "qa_f1", (_MULTI_HOP_HEAD,), (_MULTI_HOP_TAIL,))


DATASETS: dict[str, Dataset] = {
    "narrativeqa": Dataset(
        "You are given a story, which can be either a novel or a movie script, and a question. "
        f"Answer the question {_CONCISELY} explanation.\n\nStory: {{context}}\n\n"
        f"Now, answer the question based on the story {_CONCISELY} explanation.\n\n"
        "Question: {input}\n\nAnswer:",
        128,
        "qa_f1",
        (_NO_EXPLANATION,),
        ("\n\nNow, answer the question based on the story",),
    ),
    "qasper": Dataset(
        f"You are given a scientific article and a question. Answer the question {_QASPER}\n\n"
        "Article: {context}\n\n Answer the question based on the above article "
        f"{_QASPER}\n\nQuestion: {{input}}\n\nAnswer:",
        128,
        "qa_f1",
        # MiniLongBench asks it with the prompt of the multi-hop tasks.
        (_NO_EXPLANATION, _MULTI_HOP_HEAD),
        ("\n\n Answer the question based on the above article", _MULTI_HOP_TAIL),
    ),
    "multifieldqa_en": Dataset(
        "Read the following text and answer briefly.\n\n{context}\n\nNow, answer the following "
        "question based on the above text, only give me the answer and do not output any other "
        "words.\n\nQuestion: {input}\nAnswer:",
        64,
        "qa_f1",
        ("answer briefly.\n\n",),
        ("\n\nNow, answer the following question based on the above text",),
    ),
    "multifieldqa_zh": Dataset(
        "阅读以下文字并用中文简短回答：\n\n{context}\n\n现在请基于上面的文章回答下面的问题，"
        "只告诉我答案，不要输出任何其他字词。\n\n问题：{input}\n回答：",
        64,
        "qa_f1_zh",
        ("用中文简短回答：\n\n",),
        ("\n\n现在请基于上面的文章回答下面的问题",),
        language="zh",
    ),
    "hotpotqa": _multi_hop(),
    "2wikimqa": _multi_hop(),
    "musique": _multi_hop(),
    "dureader": Dataset(
        "请基于给定的文章回答下述问题。\n\n文章：{context}\n\n请基于上述文章回答下面的问题。\n\n"
        "问题：{input}\n回答：",
        128,
        "rouge_l_zh",
        ("请基于给定的文章回答下述问题。\n\n",),
        ("\n\n请基于上述文章回答下面的问题",),
        language="zh",
    ),
    "gov_report": Dataset(
        "You are given a report by a government agency. Write a one-page summary of the report."
        "\n\nReport:\n{context}\n\nNow, write a one-page summary of the report.\n\nSummary:",
        512,
        "rouge_l",
        ("Write a one-page summary of the report.\n\n",),
        ("\n\nNow, write a one-page summary of the report.",),
    ),
    "qmsum": Dataset(
        "You are given a meeting transcript and a query containing a question or instruction. "
        "Answer the query in one or more sentences.\n\nTranscript:\n{context}\n\nNow, answer the "
        "query based on the above meeting transcript in one or more sentences.\n\n"
        "Query: {input}\nAnswer:",
        512,
        "rouge_l",
        ("Answer the query in one or more sentences.\n\n",),
        ("\n\nNow, answer the query based on the above meeting transcript",),
    ),
    "multi_news": Dataset(
        "You are given several news passages. Write a one-page summary of all news. \n\nNews:\n"
        "{context}\n\nNow, write a one-page summary of all the news.\n\nSummary:",
        512,
        "rouge_l",
        ("Write a one-page summary of all news. \n\n",),
        ("\n\nNow, write a one-page summary of all the news.",),
    ),
    "vcsum": Dataset(
        "下面有一段会议记录，请你阅读后，写一段总结，总结会议的内容。\n会议记录：\n{context}\n\n"
        "会议总结：",
        512,
        "rouge_l_zh",
        ("总结会议的内容。\n",),
        ("\n\n会议总结：",),
        language="zh",
    ),
    "trec": Dataset(
        "Please determine the type of the question below. Here are some examples of questions."
        "\n\n{context}\n{input}",
        64,
        "classification",
        ("Here are some examples of questions.\n\n",),
        ("\nQuestion:",),
        first_line=True,
    ),
    "triviaqa": Dataset(
        f"Answer the question based on the given passage. {_ONLY} The following are some examples."
        "\n\n{context}\n\n{input}",
        32,
        "qa_f1",
        ("The following are some examples.\n\n",),
        ("\nQuestion:",),
        first_line=True,
    ),
    "samsum": Dataset(
        "Summarize the dialogue into a few short sentences. The following are some examples.\n\n"
        "{context}\n\n{input}",
        128,
        "rouge_l",
        ("The following are some examples.\n\n",),
        ("\nDialogue:",),
        first_line=True,
    ),
    "lsht": Dataset(
        "请判断给定新闻的类别，下面是一些例子。\n\n{context}\n{input}",
        64,
        "classification",
        ("下面是一些例子。\n\n",),
        ("\n新闻内容：",),
        language="zh",
        first_line=True,
    ),
    "passage_count": Dataset(
        "There are some paragraphs below sourced from Wikipedia. Some of them may be duplicates. "
        "Please carefully read these paragraphs and determine how many unique paragraphs there are "
        "after removing duplicates. In other words, how many non-repeating paragraphs are there in "
        "total?\n\n{context}\n\nPlease enter the final count of unique paragraphs after removing "
        "duplicates. The output format should only contain the number, such as 1, 2, 3, and so on."
        "\n\nThe final answer is: ",
        32,
        "count",
        ("how many non-repeating paragraphs are there in total?\n\n",),
        ("\n\nPlease enter the final count of unique paragraphs",),
    ),
    "passage_retrieval_en": Dataset(
        "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine which "
        "paragraph the abstract is from.\n\n{context}\n\nThe following is an abstract.\n\n{input}"
        "\n\nPlease enter the number of the paragraph that the abstract is from. The answer format "
        'must be like "Paragraph 1", "Paragraph 2", etc.\n\nThe answer is: ',
        32,
        "retrieval",
        ("which paragraph the abstract is from.\n\n",),
        ("\n\nThe following is an abstract.",),
    ),
    "passage_retrieval_zh": Dataset(
        "以下是若干段落文字，以及其中一个段落的摘要。请确定给定的摘要出自哪一段。\n\n{context}\n\n"
        '下面是一个摘要\n\n{input}\n\n请输入摘要所属段落的编号。答案格式必须是"段落1"，"段落2"等格式'
        "\n\n答案是：",
        32,
        "retrieval",
        ("请确定给定的摘要出自哪一段。\n\n",),
        ("\n\n下面是一个摘要",),
        language="zh",
    ),
    "lcc": Dataset(
        f"{_CODE}{{context}}{_NEXT_LINE}", 64, "code_sim", (_CODE,), (_NEXT_LINE,), language="code"
    ),
    "repobench-p": Dataset(
        f"{_CODE}{{context}}{{input}}{_NEXT_LINE}",
        64,
        "code_sim",
        (_CODE,),
        (_NEXT_LINE,),
        language="code",
    ),
}
