"""What loading a configuration raises."""

from __future__ import annotations

NOT_JSON = 'must be a list or a table in JSON; write for example ["a", "b"] or {"key": "value"}'


class ConfigError(Exception):
    """The configuration cannot be used.

    `problems`: one line each, with the source, the key, what is wrong and what to do. No line contains a value.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))
