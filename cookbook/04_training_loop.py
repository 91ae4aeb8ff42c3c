"""The method without the engine: one flat loop, nothing hidden.

Reads a document, freezes its keys and values, trains the queries on clozes of it, and shows the
held-out loss before and after. Change the supervision, the optimiser or the loop from here.

    python cookbook/04_training_loop.py
"""

import torch
from torch.nn import functional

from ttt_core import AdaptationConfig
from ttt_core.adapter import QueryAdapter
from ttt_core.frozen_base import FrozenBase
from ttt_core.loaded import LoadedModel
from ttt_core.loading import default_model, load
from ttt_core.prefill import prefill
from ttt_core.probe import hold_out, paired_test, score_clozes
from ttt_core.sandbox import make_registry
from ttt_core.supervision import Given, TokenizedDocument, get_supervision

config = AdaptationConfig(steps=16, learning_rate=3e-3)
loaded = LoadedModel(*load(default_model()), template_kwargs=None)
runtime, chat = loaded.runtime, loaded.chat

prompt = chat.prefix(make_registry(256, seed=2).text)
document = TokenizedDocument.of(prompt, chat, loaded.tokenizer)
prefix = prefill(runtime, prompt.input_ids)  # the base model's K,V; never written again
held_out = hold_out(document, config)

adapter = QueryAdapter.create(runtime.architecture.projections, config)
optimizer = torch.optim.AdamW(adapter.parameters(), lr=config.learning_rate, weight_decay=0.01)
base = FrozenBase(loaded, prompt, prefix, chunk=512)  # for supervisions that ask the model
given = Given(document, held_out.passages, config, question=None, base=base)
supervision = get_supervision("cloze")(given)

before = score_clozes(runtime, prefix, document, held_out.deciding, None)
for step, batch in zip(range(config.steps), supervision.batches(), strict=False):
    with runtime.turn(adapter) as model:  # bound for this block, gone behind it
        logits = runtime.attention.forward_batch(model, prefix, batch)
        loss = functional.cross_entropy(logits, batch.targets)
        gradients = torch.autograd.grad(loss, adapter.parameters())
    for parameter, gradient in zip(adapter.parameters(), gradients, strict=True):
        parameter.grad = gradient
    torch.nn.utils.clip_grad_norm_(adapter.parameters(), config.max_grad_norm)
    optimizer.step()
    print(f"step {step + 1:2}  loss {loss.item():.3f}")
after = score_clozes(runtime, prefix, document, held_out.deciding, adapter)
print(paired_test(before, after))
