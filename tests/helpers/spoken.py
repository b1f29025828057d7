"""Phrases that an editor struck from pages, help, messages and docstrings, each for its kind."""

import re

SPOKEN = re.compile(
    r"goes? on\b|what comes of it|without more words|has mostly|in the fastest of its exact forms,"
    r"|makes every published|for the eye|whoever wins|waits? for ever|the board is made again"
    r"|what would do\b|beyond doubt|tells of\b|can tell\b|some five minutes|foretold|heeded"
    r"|times of 5|for want of|not at hand|by the clock\b|told (?:apart|from)|is done already"
    r"|(?<![.`\w])honesty\b|so many (?:seconds|trials|hours|times) (?:at|for|here)",
    re.IGNORECASE,
)
