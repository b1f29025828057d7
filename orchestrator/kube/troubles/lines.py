"""One line of a trouble, and the parts of Kubernetes' objects that it is made of."""

import datetime

from orchestrator.kube.api import Json

LONGEST = 400
"""Characters of a message at most."""


def line(name: str, cause: Json) -> str:
    """Reason and message of a condition, an event or a container's state."""
    message = " ".join(str(cause.get("message") or "").split())[:LONGEST]
    return f"{name}: {cause.get('reason') or 'no reason given'}: {message}".rstrip(": ")


def conditions(body: Json) -> list[Json]:
    """The conditions in an object's status."""
    return (body.get("status") or {}).get("conditions") or []


def holds(body: Json, kind: str, status: str = "True") -> bool:
    """Whether an object has a condition."""
    return any(
        each.get("type") == kind and each.get("status") == status for each in conditions(body)
    )


def minutes_since(time: str) -> int:
    """Whole minutes that have passed since then; 0 where the time is not known."""
    try:
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(time)
    except (ValueError, TypeError):
        return 0
    return int(age.total_seconds() // 60)
