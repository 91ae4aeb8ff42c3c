"""Documents for LangChain's agents: what every model call of a run is about."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
)

try:
    from langchain.agents.middleware import (
        AgentMiddleware,
        AgentState,
        ModelRequest,
        ModelResponse,
        TracePolicy,
        omit_payload,
    )
    from langchain.agents.middleware.types import OmitFromSchema
except ImportError:
    raise ImportError(
        "TTTDocumentsMiddleware needs langchain, 1.4 or newer: pip install 'langchain>=1.4'"
    ) from None

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.documents import Document as LangChainDocument
from langchain_core.runnables import ensure_config
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import (
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from typing_extensions import NotRequired, TypedDict

from langchain_ttt.chat_models import ChatTTT
from langchain_ttt.events import AsyncProgressEvents, make_run, progress_events
from langchain_ttt.messages import DocumentLike, to_documents, to_messages
from ttt_core import ConfigError, Document
from ttt_core.chat import split_system
from ttt_core.document import as_document
from ttt_core.integration.resolver import as_text

if TYPE_CHECKING:
    from langchain_core.callbacks.base import BaseCallbackManager

OnOtherModel = Literal["ignore", "warn", "raise"]
Documents: TypeAlias = DocumentLike | Sequence[DocumentLike]
Request: TypeAlias = ModelRequest[Any]
Response: TypeAlias = ModelResponse[Any]

R = TypeVar("R", bound=BaseRunManager)
_InState: TypeAlias = list[LangChainDocument | str] | LangChainDocument | str | None


class TTTDocumentsMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Lets an agent on a `ChatTTT` answer about documents, with its tools and its memory.

    Nothing of a run is kept here: runs with different documents do not meet. What was learned is
    in the engine and in its store, where a run in another process finds it again.

    Put it last in the list, next to the model: what comes before it may exchange the model or the
    system prompt, which is read along with the documents.

    Example:
        >>> agent = create_agent(llm, tools, middleware=[TTTDocumentsMiddleware(documents)])
        >>> per_run = TTTDocumentsMiddleware(from_state="documents")
        >>> agent = create_agent(llm, tools, middleware=[per_run])
        >>> agent.invoke({"messages": [question], "documents": documents})

    A run's documents win over those of the middleware, and these over the model's own; an empty
    list turns documents off for that run. Documents in a state are part of
    it: checkpointers write them and LangSmith shows them, as they do messages. Those given here, or
    in the context, they never see.

    Args:
        documents: Read together. What runs are about that bring none.
        from_state: Key of the agent's state with a run's documents: texts or LangChain documents.
            It becomes part of the agent's input, but not of its output.
        from_context: Key or attribute of the runtime context with a run's documents.
        adapt_first: Adapt before the model is called, so that its `timeout` is for the answer
            alone; else the call does so.
        on_other_model: What to do where the agent's model is no `ChatTTT`: leave the documents out
            of that call (`ignore`), and say so (`warn`), or refuse it (`raise`).

    Raises:
        ConfigError: No source of documents, or two of a run's; or an unknown `on_other_model`.
        DocumentError: A document is empty.
    """

    trace_policy = TracePolicy(process_inputs=omit_payload)
    """The spans of this middleware would hold the whole state, documents included."""

    def __init__(
        self,
        documents: Documents | None = None,
        *,
        from_state: str | None = None,
        from_context: str | None = None,
        adapt_first: bool = True,
        on_other_model: OnOtherModel = "warn",
    ) -> None:
        super().__init__()
        if documents is None and from_state is None and from_context is None:
            raise ConfigError("expected documents, or from_state= or from_context= to find them")
        if from_state is not None and from_context is not None:
            raise ConfigError("a run's documents come from_state= or from_context=, not both")
        if on_other_model not in get_args(OnOtherModel):
            raise ConfigError(
                f"on_other_model is 'ignore', 'warn' or 'raise', not {on_other_model!r}"
            )
        self._documents = () if documents is None else to_documents(documents)
        if documents is not None:
            as_document(self._documents)  # Checks: an empty list must not turn documents off.
        self._from_state = from_state
        self._from_context = from_context
        self._adapt_first = adapt_first
        self._on_other_model = on_other_model
        if from_state is not None:
            self.state_schema = _state_with(from_state)

    def wrap_model_call(self, request: Request, handler: Callable[[Request], Response]) -> Response:
        """Call the model about the run's documents.

        Raises:
            ConfigError: The agent's model is another one, if that is to be refused; or documents
                that are none.
            DocumentError: A document is empty, or too long.
        """
        call = self._prepare(request)
        if call is None:
            return handler(request)
        if call.adapt_first:
            events = progress_events(_run())
            call.llm.adapt(call.documents, system=call.system, on_progress=events)
        return handler(call.request)

    async def awrap_model_call(
        self, request: Request, handler: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Do the same beside the event loop; cancelling stops the adaptation."""
        # In a thread: texts are hashed there, and the engine's libraries may be imported.
        call = await asyncio.to_thread(self._prepare, request)
        if call is None:
            return await handler(request)
        if call.adapt_first:
            async with AsyncProgressEvents(_async_run()) as events:
                await call.llm.aadapt(
                    call.documents, system=call.system, on_progress=events.callback
                )
        return await handler(call.request)

    def _prepare(self, request: Request) -> _Call | None:
        """Find out what to do; None: the call goes on as it is."""
        own = request.model_settings
        if own.get("documents") is not None or own.get("adapter") is not None:
            return None  # Somebody nearer to the call names its documents.
        given = self._given(request)
        if given is None:
            return None
        llm = _chat_model(request.model)
        if llm is None:
            self._miss(request.model)
            return None
        if not given and not isinstance(given, str):  # This run is to be without.
            without = request.override(model_settings={**own, "documents": []})
            return _Call(llm, (), None, False, without)
        with llm._errors():
            documents = to_documents(given)
            name = llm._registry(own.get("model")).register(documents)
            said = [request.system_message] if request.system_message else []
            system, _ = split_system(as_text(to_messages([*said, *request.messages])))
        return _Call(
            llm,
            documents,
            system,
            self._adapt_first and own.get("model") is None,
            request.override(model_settings={**own, "adapter": name}),
        )

    def _given(self, request: Request) -> Documents | None:
        """Return what this run is about; None: nobody said."""
        given: Any = None
        if self._from_state is not None:
            given = cast("Mapping[str, Any]", request.state).get(self._from_state)
        elif self._from_context is not None:
            given = _member(getattr(request.runtime, "context", None), self._from_context)
        return (self._documents or None) if given is None else given

    def _miss(self, model: object) -> None:
        message = (
            f"the agent's model is a {type(model).__name__}, not a ChatTTT: it knows nothing of "
            f"the documents of TTTDocumentsMiddleware"
        )
        if self._on_other_model == "raise":
            raise ConfigError(f"{message}; use a ChatTTT, or on_other_model='warn'")
        if self._on_other_model == "warn":
            warnings.warn(f"{message} in this call", stacklevel=3)


class _Call(NamedTuple):
    """A model call about documents."""

    llm: ChatTTT
    documents: tuple[Document, ...]
    system: str | None
    adapt_first: bool
    request: Request


def _state_with(name: str) -> type[AgentState[Any]]:
    """Make the part of an agent's state that holds a run's documents."""
    hint = NotRequired[Annotated[_InState, OmitFromSchema(input=False, output=True)]]
    made = TypedDict("TTTDocumentsState", {name: hint})  # type: ignore[misc]
    return cast("type[AgentState[Any]]", made)


def _member(context: object, name: str) -> Any:
    """Look a name up in a runtime context, which is whatever the agent's author made it.

    Raises:
        ConfigError: The context has no such attribute.
    """
    if context is None or isinstance(context, Mapping):
        return (context or {}).get(name)
    try:
        return getattr(context, name)
    except AttributeError:
        raise ConfigError(
            f"from_context={name!r}: the agent's context, a {type(context).__name__}, has no such "
            f"attribute"
        ) from None


def _chat_model(model: object) -> ChatTTT | None:
    """Find the model behind what was bound to it."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    return model if isinstance(model, ChatTTT) else None


def _run() -> CallbackManagerForLLMRun | None:
    """Return the run around this call, to send progress to its handlers."""
    return _as_run(CallbackManagerForLLMRun, get_callback_manager_for_config(ensure_config()))


def _async_run() -> AsyncCallbackManagerForLLMRun | None:
    manager = get_async_callback_manager_for_config(ensure_config())
    return _as_run(AsyncCallbackManagerForLLMRun, manager)


def _as_run(kind: type[R], manager: BaseCallbackManager) -> R | None:
    if manager.parent_run_id is None:
        return None
    return make_run(kind, manager, manager.parent_run_id)
