"""The process of a searcher of others: it answers one JSON object a line with another.

The interpreter that has the searcher's libraries runs this file as a script. So it imports the
standard library alone, and nothing of isoflop. What a searcher prints goes to standard error.
"""

import importlib
import json
import os
import random
import sys
import traceback
from typing import Any, TextIO


class Unusable(Exception):
    """A place that holds no class of a searcher."""


def searcher_at(place: str) -> Any:
    """The class at `package.module:Class`, which has `ask` and `tell`."""
    module, _, name = place.partition(":")
    try:
        content = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module == missing or module.startswith(f"{missing}."):
            where = f"must be installed or lie in {sys.path[-1]}"
            raise Unusable(f"{where}, but no module is called {missing!r}") from None
        raise Unusable(f"must be importable, but {reason(error)}") from None
    except (Exception, SystemExit) as error:
        raise Unusable(f"must be importable, but {reason(error)}") from None
    if not hasattr(content, name):
        classes = [each for each, value in vars(content).items() if isinstance(value, type)]
        known = ", ".join(classes) or "none"
        raise Unusable(f"must be a class, but {module} defines no {name}; its classes: {known}")
    found = getattr(content, name)
    if not isinstance(found, type):
        raise Unusable(f"must be a class, but is a {type(found).__name__}")
    for method in ("ask", "tell"):
        if not callable(getattr(found, method, None)):
            raise Unusable(f"must have a method `{method}`, but has none")
    return found


def seed_all(seed: int) -> None:
    """Seed the global generators, from which some libraries draw."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def reason(error: BaseException) -> str:
    """What was raised and where, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = (__file__, importlib.__file__)
    places = [frame for frame in frames if frame[0] not in ours and "<frozen" not in frame[0]]
    where = f"{os.path.basename(places[-1].filename)}:{places[-1].lineno} " if places else ""  # noqa: PTH119
    text = " ".join(str(error).split())[:300]
    return f"{where}raised {type(error).__name__}: {text}".rstrip(": ")


def plain(value: Any) -> Any:
    """A number of numpy or torch as one of Python."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a proposal must hold numbers, texts and booleans, but got {value!r:.100}")


class Server:
    """The searchers of one class, by session: each method's search has one."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.made: Any = None
        self.searchers: dict[str, Any] = {}

    def answer(self, message: dict[str, Any]) -> Any:
        """What a message asks for."""
        kind, session, content = message["do"], message["session"], message["with"]
        if kind == "load":
            self.made = searcher_at(self.place)
            return None
        if kind == "clear":
            self.searchers.clear()
            return None
        if kind == "open":
            seed_all(content["seed"])
            self.searchers[session] = self.made(**content)
            return callable(getattr(self.searchers[session], "stop", None))
        answer = getattr(self.searchers[session], kind)(**content)
        return bool(answer) if kind == "stop" else answer if kind == "ask" else None

    def reply(self, message: dict[str, Any]) -> str:
        """The line that answers a message, which may say what was raised."""
        try:
            return json.dumps({"answer": self.answer(message)}, default=plain)
        except Unusable as error:
            return json.dumps({"unusable": str(error)})
        except (Exception, SystemExit) as error:
            return json.dumps({"raised": reason(error)})


def serve(server: Server, questions: TextIO, answers: TextIO) -> None:
    """Answer until there are no more questions."""
    for line in questions:
        answers.write(server.reply(json.loads(line)) + "\n")
        answers.flush()


def main() -> None:
    """Serve the searcher at the first argument; its module may lie in the folder of the second."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    place, folder = sys.argv[1:]
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]  # noqa: PTH100
    sys.path.append(folder)
    serve(Server(place), sys.stdin, answers)


if __name__ == "__main__":
    main()
