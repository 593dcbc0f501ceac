"""What a model call took that ended without figures: its answer was stopped, it failed, or its gateway died.

The prompt is that of the session's last real call and the answer behind it; the output is what was streamed. Estimates are marked
as such (`source = 'estimate'`), and never stand where a transcript has the model's own figures.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from decimal import Decimal
from typing import Protocol

from sidecar.domain.usage import ModelCall, Source, Tokens
from sidecar.protocol.usage import Unfinished

CHARS_PER_TOKEN = 4
"""Of an answer's text; the rule of thumb of several providers for English."""

MOST_SESSIONS = 10_000


class Book(Protocol):
    async def last_call(self, gateway_id: str, session_key: str, before: float) -> ModelCall | None:
        """The session's last call with the model's own figures. Raises StorageAway."""

    async def least_call(self, gateway_id: str, slug: str, before: float) -> ModelCall | None:
        """The user's call with the shortest prompt. Raises StorageAway."""


class Estimates:
    """Of one gateway."""

    def __init__(self, gateway_id: str, book: Book, unknown: int = 0) -> None:
        """`unknown`: tokens of a prompt of which nothing at all is known."""
        self._gateway_id = gateway_id
        self._book = book
        self._unknown = unknown
        self._least = 0
        """Tokens of the shortest prompt that was seen here, whoever sent it; 0 for none."""

        self._last: OrderedDict[str, ModelCall] = OrderedDict()
        self._stopped: OrderedDict[str, str] = OrderedDict()
        """Run → the first message that told of its stop."""

    def saw(self, call: ModelCall) -> None:
        """A call with the model's own figures, as it happens."""
        prompt = call.tokens.total - call.tokens.output
        if ":subagent:" not in call.session_key:  # they are told less
            self._least = min(self._least or prompt, prompt)
        self._last[call.session_key] = call
        self._last.move_to_end(call.session_key)
        if len(self._last) > MOST_SESSIONS:
            self._last.popitem(last=False)

    async def of(self, slug: str, key: str, said: Unfinished, at: float) -> ModelCall | None:
        """None where no model was at work, as far as one can tell: the run was between two calls. Raises StorageAway."""
        last = self._last.get(key)
        if last is None or last.at > at:
            last = await self._book.last_call(self._gateway_id, key, at)
        if last is None:
            last = await self._first_of(slug, at)
        output = -(-said.text_chars // CHARS_PER_TOKEN)
        at_tools = last is not None and last.run_id == said.run_id and last.metadata.get("stop_reason") == "toolUse"
        # 2026.8.2 tells of one stopped call in two messages: one with the words, and one that the call is off.
        stop = bool(said.run_id) and not (said.error or said.uncounted)
        again = stop and self._stopped.get(said.run_id, said.message_id) != said.message_id
        if again and not output:
            return None
        if again or (not output and said.error):
            prompt = Tokens()  # it is billed already, or nobody bills what was refused
        elif not output and at_tools and not (said.wordless or said.uncounted):
            return None
        elif last is None:
            prompt = Tokens(input=self._least or self._unknown)
        else:
            prompt = replace(last.tokens, input=last.tokens.input + last.tokens.output, output=0)
        if stop:
            self._note_stop(said)
        tokens = replace(prompt, output=output)
        known = last is not None and last.tokens.total > 0
        cost = last.cost_usd * tokens.total / last.tokens.total if last is not None and known else Decimal(0)
        metadata = {"reason": "failed" if said.error else "uncounted" if said.uncounted else "stopped"}
        return ModelCall(
            gateway_id=self._gateway_id,
            call_id=said.message_id,
            source=Source.ESTIMATE,
            slug=slug,
            session_key=key,
            run_id=said.run_id,
            provider=said.provider or (last.provider if last else ""),
            model=said.model or (last.model if last else ""),
            tokens=tokens,
            cost_usd=round(cost, 9),
            at=at,
            metadata=metadata | ({"error": said.error} if said.error else {}),
        )

    def _note_stop(self, said: Unfinished) -> None:
        self._stopped.setdefault(said.run_id, said.message_id)
        if len(self._stopped) > MOST_SESSIONS:
            self._stopped.popitem(last=False)

    async def _first_of(self, slug: str, at: float) -> ModelCall | None:
        """In place of the last call of a session that had none: what an agent sends with its first words, and no answer before."""
        least = await self._book.least_call(self._gateway_id, slug, at)
        if least is None:
            return None
        prompt = replace(least.tokens, output=0)
        cost = least.cost_usd * prompt.total / least.tokens.total if least.tokens.total else Decimal(0)
        return replace(least, tokens=prompt, cost_usd=cost, run_id="")
