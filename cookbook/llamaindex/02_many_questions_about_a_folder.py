"""Read a folder once and ask many questions about it; the second run reads nothing again.

A `SummaryIndex` passes all files with every question. With `for_documents` the model has read them
before: what the index passes is recognised, and left out of the prompt. What was learned is kept in
the store, and with `max_disk_kv_bytes` the keys and values beside it: run it twice. Files are known
by their text, so that a `touch`, another folder or random ids make no difference.

    python cookbook/llamaindex/02_many_questions_about_a_folder.py
    python cookbook/llamaindex/02_many_questions_about_a_folder.py reports --model Qwen/Qwen3-4B \\
        --ask "What did the auditor object to?" "Who signed them?"

Prints (shortened):
    2 files, 2,335 tokens
    adapter: trained, 28.8 s; keys and values: computed, 0.5 s
      2,613 tokens in the prompt, 278 computed
    tokens to read once and answer:    3,174
    tokens to read every time:         7,844

The second run prints "adapter: store" and "keys and values: disk", and reads nothing. What is
computed for a question is LlamaIndex's own prompt and the question. Without a folder it reads one
of the standard library, about which the toy, which only knows registries, has nothing to say: look
at what is read, not at the answers.

When not to use it: where the folder does not fit the model's window (index it with a retriever, as
recipe 01 does), or where its keys and values must not lie on a disk: they hold what it says.
"""

import argparse
import multiprocessing.dummy
from pathlib import Path

from llama_index.core import Settings, SimpleDirectoryReader, SummaryIndex

from llamaindex_ttt import TTTLLM, collect_raw
from ttt_core import RuntimeConfig, TTTEngine

FOLDER = Path(multiprocessing.dummy.__file__).parent
QUESTIONS = ["What is a DummyProcess?", "What does Pool() return?", "How do I make a Pipe?"]

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", nargs="?", default=FOLDER, help="default: multiprocessing/dummy")
parser.add_argument("--ask", nargs="+", default=QUESTIONS, metavar="QUESTION")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()

engine = TTTEngine.from_pretrained(options.model, runtime=RuntimeConfig(max_disk_kv_bytes=4 << 30))
llm = TTTLLM(engine=engine, max_tokens=64)
Settings.tokenizer = llm.tokenizer  # LlamaIndex would count with another model's.

# Hidden is to LlamaIndex also what lies in a hidden folder, such as ~/.pyenv.
reader = SimpleDirectoryReader(
    options.folder, recursive=True, exclude_hidden=False, required_exts=[".py", ".md", ".txt"]
)
files = reader.load_data()
llm = llm.for_documents(files)
read = llm.adapt()
print(f"{len(files)} files, {read.n_tokens:,} tokens")
learned, prefilled = (f"{read.seconds[stage]:.1f} s" for stage in ("adaptation", "prefill"))
print(f"adapter: {read.source}, {learned}; keys and values: {read.prefix_source}, {prefilled}")
print(f"{read.report.decision}: {read.report.reasons[-1]}")

ask = SummaryIndex.from_documents(files).as_query_engine(llm=llm).query
with collect_raw() as raw:
    for question in options.ask:
        print(f"{question} {ask(question)}")
        cached, computed = raw[-1]["ttt"]["cached_tokens"], raw[-1]["ttt"]["computed_tokens"]
        print(f"  {cached + computed:,} tokens in the prompt, {computed:,} computed")

computed = sum(each["ttt"]["computed_tokens"] for each in raw)
cached = sum(each["ttt"]["cached_tokens"] for each in raw)
print(f"tokens to read once and answer: {read.n_tokens + computed:8,}")
print(f"tokens to read every time:      {cached + computed:8,}")
