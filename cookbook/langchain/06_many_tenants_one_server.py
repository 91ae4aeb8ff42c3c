"""Several tenants on one server process: the weights are shared, and nothing else.

    python cookbook/langchain/06_many_tenants_one_server.py
    python cookbook/langchain/06_many_tenants_one_server.py --model Qwen/Qwen3-4B

Prints (shortened):
    6 requests of 3 tenants at the same time
    acme    document 6a61f19c2d5b2522  loyal mill: Madrid
    globex  document 98ad2f38fb001432  indigo river: Singapore
    6 of 6 right
    the document that all 3 have goes by 3 ids
    globex names a document of acme's: refused

When not to use it: against tenants that share a process with code of their own, or where who waits
for whom must not be seen: answers are decoded together, and time tells how busy the others are.
"""

import argparse
import asyncio
import secrets

from langchain_core.messages import AIMessage

from langchain_ttt import ChatTTT, InvalidDocumentError
from ttt_core import TTTEngine
from ttt_core.sandbox import Registry, make_registry

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", help="a local folder or a Hub id; default: the bundled toy model")
options = parser.parse_args()

# Keep yours where passwords are: with another secret, what was learned is not found again.
SECRETS = {name: secrets.token_hex(32) for name in ("acme", "globex", "initech")}
engine = TTTEngine.from_pretrained(options.model)
tenants = {
    name: ChatTTT(engine=engine, namespace=name, namespace_secret=secret, max_tokens=64)
    for name, secret in SECRETS.items()
}
public = make_registry(32, seed=0, questions=1)
private = {name: make_registry(32, seed=seed, questions=1) for seed, name in enumerate(tenants, 1)}


async def serve(name: str, registry: Registry) -> AIMessage:
    """Answer one request, as a web framework's handler would."""
    question, documents = registry.questions[0].text, [registry.text]
    return await tenants[name].ainvoke(question, documents=documents)


async def main() -> None:
    """Let all tenants ask at once, about a document of their own and one that all of them have."""
    requests = [(name, each) for name in tenants for each in (private[name], public)]
    print(f"{len(requests)} requests of {len(tenants)} tenants at the same time")
    answers = await asyncio.gather(*[serve(*request) for request in requests])

    ids = [answer.response_metadata["ttt"]["document_id"] for answer in answers]
    for (name, _), answer, identifier in zip(requests, answers, ids, strict=True):
        print(f"{name:8}document {identifier}  {answer.text}")
    truth = [registry.questions[0].answer for _, registry in requests]
    right = sum(answer.text == true for answer, true in zip(answers, truth, strict=True))
    print(f"{right} of {len(answers)} right")
    print(f"the document that all {len(tenants)} have goes by {len(set(ids[1::2]))} ids")
    try:
        await tenants["globex"].ainvoke("Where is it?", adapter=ids[0])
    except InvalidDocumentError:
        print("globex names a document of acme's: refused")


asyncio.run(main())
