"""Ask many questions of one document, and see what each of them costs.

    python cookbook/01_many_questions.py
    python cookbook/01_many_questions.py report.md --model Qwen/Qwen3-4B \\
        "What did the auditor object to?" "Who signed it?"
"""

import argparse

from ttt_core import Document, TTTEngine
from ttt_core.sandbox import make_registry

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("file", nargs="?", help="a text file; without it, a generated registry")
parser.add_argument("questions", nargs="*")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()

if options.file:
    document, questions = Document.from_file(options.file), options.questions
else:
    registry = make_registry(256, seed=1, questions=4)
    document, questions = Document.of(registry.text), [q.text for q in registry.questions]

engine = TTTEngine.from_pretrained(options.model)

# Reads the document and trains on it; the second time, what was learned is fetched.
with engine.adapt(document) as adapted:
    print(f"{adapted.n_tokens:,} tokens read, {adapted.source}: {adapted.report.decision}")
    for reason in adapted.report.reasons:
        print(f"  {reason}")
    for question in questions:
        answer = engine.generate(adapted, question)
        print(f"\n{question}\n{answer.text}")
        print(f"  {answer.usage.computed_tokens} tokens computed in {answer.timing.total:.2f} s")
