"""Fill a Pydantic class from a long contract; the answer fits the class, token by token.

    python cookbook/llamaindex/05_extract_from_a_contract.py
    python cookbook/llamaindex/05_extract_from_a_contract.py contract.txt --model Qwen/Qwen3-4B

Prints (shortened):
    64 clauses, 6 fields
    30 partial objects, then a Deliveries
    wrong  indigo_hammer: indigo hammer: Paris
    5 of 6 fields right

Without a file it reads a generated schedule of deliveries, a clause `orange lantern: Kingston` for
each lot. The toy model knows no JSON: its fields are whole clauses, whose beginning the pattern
dictates. Of five such schedules (this is one of the two best) it got 21 of 30 fields right: a value
that is valid need not be true.

When not to use it: where a wrong field is worse than none. Nothing here says how sure the model
is; let fields be None, ask for the clause beside each value, and look the clause up in the text.
"""

import argparse
from pathlib import Path

from llama_index.core import PromptTemplate
from pydantic import BaseModel, Field, create_model

from llamaindex_ttt import TTTLLM
from ttt_core.sandbox import make_registry
from ttt_core.sandbox.words import places

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("file", nargs="?", help="a contract; without it, a generated schedule")
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()


class Contract(BaseModel):
    """What to look for in your contract: change this class."""

    parties: list[str] = Field(max_length=6, description="the names of all who sign")
    signed_on: str | None = Field(description="as YYYY-MM-DD; null if it is not there")
    governing_law: str | None = Field(max_length=80)
    notice_days: int | None = Field(ge=0, le=3650, description="days of notice to terminate")
    notice_clause: str | None = Field(max_length=300, description="the clause, word for word")


llm = TTTLLM(model=options.model, max_tokens=512)
if options.file:
    prompt = PromptTemplate("Extract the terms of this contract.")
    llm = llm.for_documents(Path(options.file).read_text("utf-8"))
    print(llm.structured_predict(Contract, prompt).model_dump_json(indent=2))
    raise SystemExit

schedule = make_registry(64, seed=0, questions=6)
clauses = {each.key.replace(" ", "_"): each for each in schedule.questions}
cities = "|".join(places())
fields = {name: (str, Field(pattern=f"^{each.key}: ({cities})$")) for name, each in clauses.items()}
Deliveries = create_model("Deliveries", **fields)

print(f"{len(schedule.records)} clauses, {len(fields)} fields")
llm = llm.for_documents(schedule.text)
stream = llm.stream_structured_predict(Deliveries, PromptTemplate("Where are they?"))
parts = list(stream)  # Each is an object, and says more than the one before.
found = parts[-1]
print(f"{len(parts) - 1} partial objects, then a {type(found).__name__}")
right = 0
for name, each in clauses.items():
    value = getattr(found, name)
    print(f"{'right' if value == each.answer else 'wrong'}  {name}: {value}")
    right += value == each.answer
print(f"{right} of {len(fields)} fields right")
