"""Chat about a document with memory, streamed; two conversations share what was read.

LlamaIndex's memory keeps what was said; the document is no part of it. It is read once, and a turn
costs what was said, not the document. The memory here is short on purpose: with `token_limit=30` a
question brings the turn before it, and no more. `chat_history` still has all of it.

    python cookbook/llamaindex/03_chat_with_memory.py
    python cookbook/llamaindex/03_chat_with_memory.py report.md --remember 4000 \\
        --model Qwen/Qwen3-4B --ask "What did the auditor object to?" "And what was said to that?"

Prints (shortened):
    [anna] Where is orange lantern? orange |lantern|: |Kingston|
      message 6 of this chat; 324 tokens not computed again, 33 computed
    6 of 6 right

The engine is LlamaIndex's simplest. Those over an index work as well: recipe 01 shows how the
pieces that they retrieve are recognised.

When not to use it: for questions that need nothing of what was said before. The bundled toy was
trained on single ones, and often repeats an earlier answer (25 of 30 right for five seeds, this is
one of the two best; 24 with all turns in its prompt).
"""

import argparse
from pathlib import Path

from llama_index.core import Document, Settings
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer

from llamaindex_ttt import TTTLLM, collect_raw
from ttt_core.sandbox import make_registry

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("file", nargs="?", help="a text file; without it, a generated registry")
parser.add_argument("--ask", nargs="+", default=["What is this about?"], metavar="QUESTION")
parser.add_argument("--remember", type=int, default=30, metavar="TOKENS")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()

registry = make_registry(64, seed=3, questions=0 if options.file else 6)
truth = {each.text: each.answer for each in registry.questions}
asked = list(truth)
said = {"anna": asked[:3], "ben": asked[3:]} if truth else {"you": options.ask}

text = Path(options.file).read_text("utf-8") if options.file else registry.text
llm = TTTLLM(model=options.model, max_tokens=256).for_documents([Document(text=text)])
Settings.tokenizer = llm.tokenizer  # Memories would count with another model's.

right = 0
for name, questions in said.items():
    memory = ChatMemoryBuffer.from_defaults(token_limit=options.remember)
    chat = SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    for question in questions:
        print(f"[{name}] {question}", end=" ")
        with collect_raw() as raw:
            answer = chat.stream_chat(question)
            for piece in answer.response_gen:
                print(piece, end="|" if piece else "", flush=True)
        cached, computed = raw[-1]["ttt"]["cached_tokens"], raw[-1]["ttt"]["computed_tokens"]
        print(f"\n  message {len(chat.chat_history)} of this chat;", end=" ")
        print(f"{cached:,} tokens not computed again, {computed:,} computed")
        right += str(answer) == truth.get(question)
print(f"{right} of {len(truth)} right" if truth else "")
