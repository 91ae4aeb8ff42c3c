"""Swap the LLM in a query engine. One line changes, and one lets it read more than the pieces:

    -llm = Ollama(model="qwen3:4b", temperature=0)
    +llm = TTTLLM(model="Qwen/Qwen3-4B", temperature=0)
    +engine = index.as_query_engine(
    +    llm=llm, node_postprocessors=[TTTDocumentPostprocessor(llm, documents=documents)])

A retriever's pieces are other ones for every question, and not worth adapting to. The documents
that they were cut from are: the postprocessor finds them, each is read (and adapted to) at the
first question that leads to it, and from then on a question costs its own tokens.

    python cookbook/llamaindex/01_swap_the_llm_in_a_query_engine.py
    python cookbook/llamaindex/01_swap_the_llm_in_a_query_engine.py report.md minutes.md \\
        --model Qwen/Qwen3-4B --ask "What did the auditor object to?" "Who signed it?"

Prints (shortened):
    the best piece alone
    Where is frozen tiger? frozen tiger: Kampala
      98 tokens in the prompt, 98 computed
    the document that it was cut from
      348 tokens in the prompt, 24 computed
    11 of 16 right

The embedding stands in for yours: it counts words, and finds the wrong piece now and then, since
both words of a key are in other lines, too. From the best piece alone 58 of 80 answers were right
for five seeds, from its document 61; this is the one where it made most difference.

When not to use it: where the pieces hold the answer anyway. With more of them in the prompt
(`similarity_top_k`) a retriever misses less, and reading whole documents gains little or nothing;
it pays where the answer needs more than fits into pieces, or the retriever is often wrong.
"""

import argparse
import re
import zlib
from pathlib import Path

from llama_index.core import Document, PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.node_parser import SentenceSplitter

from llamaindex_ttt import TTTLLM, TTTDocumentPostprocessor, collect_raw
from ttt_core.sandbox import make_registry

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("files", nargs="*", help="text files; without any, four generated registries")
parser.add_argument("--ask", nargs="+", default=["What is this about?"], metavar="QUESTION")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()


class WordCounts(BaseEmbedding):
    """Texts are alike if they have words in common: yours is better."""

    def _get_text_embedding(self, text: str) -> list[float]:
        places = [zlib.crc32(word.encode()) % 1024 for word in re.findall(r"\w+", text.lower())]
        return [float(places.count(place)) for place in range(1024)]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


registry = make_registry(256, seed=3, questions=0 if options.files else 16)
lines = registry.text.splitlines()
texts = ["\n".join(lines[start : start + 64]) for start in range(0, 256, 64)]
documents = [Document(text=text) for text in texts]
if options.files:
    documents = [Document(text=Path(file).read_text("utf-8")) for file in options.files]
truth = {each.text: each.answer for each in registry.questions}

llm = TTTLLM(model=options.model, temperature=0, max_tokens=64)
Settings.tokenizer = llm.tokenizer  # LlamaIndex would count with another model's.
pieces = SentenceSplitter(chunk_size=80, chunk_overlap=0, paragraph_separator="\n")
index = VectorStoreIndex.from_documents(
    documents, transformations=[pieces], embed_model=WordCounts()
)
# The toy has never seen a prompt such as LlamaIndex's own; leave this out for other models.
prompt = PromptTemplate("{context_str}\n\n{query_str}")

for title, postprocessors in {
    "the best piece alone": [],
    "the document that it was cut from": [TTTDocumentPostprocessor(llm, documents=documents)],
}.items():
    print(title)
    engine = index.as_query_engine(
        llm=llm,
        similarity_top_k=1,
        text_qa_template=prompt,
        node_postprocessors=postprocessors,
    )
    right = 0
    for question in truth or options.ask:
        with collect_raw() as raw:
            answer = str(engine.query(question))
        print(f"{question} {answer}")
        cached, computed = raw[-1]["ttt"]["cached_tokens"], raw[-1]["ttt"]["computed_tokens"]
        print(f"  {cached + computed:,} tokens in the prompt, {computed:,} computed")
        right += answer == truth.get(question)
    print(f"{right} of {len(truth)} right" if truth else "")
