"""A judge in this process: any chat model that diascope opens (hub, folder, GGUF, package alias), greedy."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from diascope.latents.describe.judge import Answer, Message
from diascope.models import Model


class Local:
    """Greedy answers of a chat model. Raises ValueError for a base model, which answers no questions."""

    parallel = 1
    failures = 0

    def __init__(self, model: Model) -> None:
        if not getattr(model.tokenizer, "chat_template", None):
            raise ValueError(
                f"{model.name} has no chat template: a base model answers no questions, give a chat model (such as "
                "smollm2-135m-instruct), a server's address, or none"
            )
        self.model, self.name = model, model.name
        self._lock = threading.Lock()  # one model, one thread

    def ask(self, messages: Sequence[Message], max_tokens: int) -> Answer:
        """The model's greedy answer."""
        with self._lock:
            prompt = self.model.chat_tokens(messages)
            answer = self.model.generate(prompt, max_new_tokens=max_tokens)
        return Answer(answer, len(prompt), len(self.model.tokenizer(answer, add_special_tokens=False)["input_ids"]))
