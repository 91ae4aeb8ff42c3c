"""Swap the model in a chain that writes documents into its prompt. One line changes:

    -llm = ChatOllama(model="qwen3:4b", temperature=0)
    +llm = ChatTTT(model="Qwen/Qwen3-4B", temperature=0, documents_from="auto")

"auto" and not `with_documents`: this chain puts the documents into the prompt itself, and would
have them read twice. The first question reads the prompt's long head; the second one brings the
same head again, so it is adapted to; from then on, what is computed is what stands behind it. "off"
is what a model without a memory does. The registry is that of recipe 03, which was chosen since the
toy gains from adapting to it.

    python cookbook/langchain/01_swap_the_llm_in_a_rag_chain.py
    python cookbook/langchain/01_swap_the_llm_in_a_rag_chain.py report.md --model Qwen/Qwen3-4B \\
        --ask "What did the auditor object to?" "Who signed it?"

Prints (shortened):
    documents_from="off"
    Where is hollow bridge? hollow bridge: Delhi
      1,295 tokens in the prompt, 1,295 computed
    documents_from="auto"
    Where is lazy guitar? lazy guitar: Oxford
      1,294 tokens in the prompt, 10 computed

When not to use it: where a retriever brings other pieces for every question. No head comes twice,
so nothing is reused or adapted to; and short pieces need no adaptation. Use it where the same
long documents are stuffed again and again.
"""

import argparse
from pathlib import Path

from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate

from langchain_ttt import ChatTTT
from ttt_core.sandbox import make_registry

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("file", nargs="?", help="a text file; without it, a generated registry")
parser.add_argument("--ask", nargs="+", default=["What is this about?"], metavar="QUESTION")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()

registry = make_registry(256, seed=3, questions=0 if options.file else 4)
documents = [Document(Path(options.file).read_text("utf-8") if options.file else registry.text)]
truth = {each.text: each.answer for each in registry.questions}
prompt = ChatPromptTemplate.from_template("{context}\n\n{question}")

for mode in ("off", "auto"):
    llm = ChatTTT(model=options.model, temperature=0, max_tokens=64, documents_from=mode)
    chain = create_stuff_documents_chain(llm, prompt)
    print(f'documents_from="{mode}"')
    right = 0
    for question in truth or options.ask:
        with get_usage_metadata_callback() as callback:
            answer = chain.invoke({"context": documents, "question": question})
        (usage,) = callback.usage_metadata.values()
        computed = usage["input_tokens"] - usage["input_token_details"]["cache_read"]
        print(f"{question} {answer}")
        print(f"  {usage['input_tokens']:,} tokens in the prompt, {computed:,} computed")
        right += answer == truth.get(question)
    print(f"{right} of {len(truth)} right" if truth else "")
