"""Ask many questions about one long report at once, and see what each of them costs.

    python cookbook/langchain/03_many_questions_one_report.py
    python cookbook/langchain/03_many_questions_one_report.py report.md --model Qwen/Qwen3-4B \\
        --ask "What did the auditor object to?" "Who signed it?"

Prints (shortened):
    1,284 tokens read
    trained: adapted
      computed  cached  seconds
            14   1,284     0.98  Where is hollow bridge? hollow bridge: Delhi
    16 of 16 right
    tokens to read once and answer:    1,508
    tokens to read every time:        20,768
    to learn, once for each document: 9,216 tokens forward and backward, 3,366 forward

"computed" are tokens that went through the model for this question, "cached" those of the report
that did not. Seconds are from the question to its answer; all are decoded together. Of five seeds
this is the only one where the engine found adapting worth it; elsewhere it kept the base model,
which got 59 of 64 right.

When not to use it: for a handful of questions about one document. Learning is not free, as the
last line printed says, and pays only where the model misses what is in the document.
"""

import argparse
from pathlib import Path

from langchain_ttt import ChatTTT
from ttt_core.sandbox import make_registry

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("file", nargs="?", help="a text file; without it, a generated registry")
parser.add_argument("--ask", nargs="+", default=["What is this about?"], metavar="QUESTION")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()

registry = make_registry(256, seed=3, questions=0 if options.file else 16)
truth = {each.text: each.answer for each in registry.questions}
questions = list(truth) or options.ask

llm = ChatTTT(model=options.model, max_tokens=64)
llm = llm.with_documents(Path(options.file).read_text("utf-8") if options.file else registry.text)
read = llm.adapt()
print(f"{read.n_tokens:,} tokens read\n{read.source}: {read.report.decision}")

print("  computed  cached  seconds")
computed = cached = right = 0
for question, answer in zip(questions, llm.batch(questions), strict=True):
    cost = answer.response_metadata["ttt"]
    seconds = f"{cost['seconds']['answer']:9.2f}"
    tokens = f"{cost['computed_tokens']:10,}{cost['cached_tokens']:8,}"
    print(f"{tokens}{seconds}  {question} {answer.text}")
    computed += cost["computed_tokens"]
    cached += cost["cached_tokens"]
    right += answer.text == truth.get(question)

report = read.report
print(f"{right} of {len(truth)} right" if truth else "")
print(f"tokens to read once and answer: {read.n_tokens + computed:8,}")
print(f"tokens to read every time:      {cached + computed:8,}")
learned = f"{report.positions:,} tokens forward and backward, {report.probed_tokens:,} forward"
print(f"to learn, once for each document: {learned}")
