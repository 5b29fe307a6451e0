"""What a worker does, a process that computes beside another, one call at a time (see `pool`).

Calls and answers are JSON lines; tensors go through files that both sides map into memory. It ends with its parent,
whatever it is doing.
"""

import json
import os
import sys
from contextlib import suppress
from importlib import import_module
from inspect import isgenerator
from queue import SimpleQueue
from threading import Thread
from typing import Any


def serve() -> None:
    """Answer calls until the parent is gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers
    messages = SimpleQueue[dict[str, Any]]()
    Thread(target=_listen, args=(messages.put,), daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    while True:
        job = messages.get()
        try:
            module, _, name = job["call"].partition(":")
            result = getattr(import_module(module), name)(**job["arguments"])
            if isgenerator(result):
                result = _exchange(result, say, messages)
            say({"return": result})
        except Exception as problem:
            say({"error": str(problem), "type": type(problem).__name__})


def _exchange(generator: Any, say: Any, messages: "SimpleQueue[dict[str, Any]]") -> Any:
    try:
        value = next(generator)
        while True:
            say({"yield": value})
            value = generator.send(messages.get()["send"])
    except StopIteration as end:
        return end.value


def _listen(put: Any) -> None:
    """Hand on what the parent says; when it is gone, so are we. Files are written whole or not at all."""
    with suppress(ValueError):
        for line in sys.stdin:
            put(json.loads(line))
    os._exit(0)
