"""`deploy/Dockerfile` as its instructions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from deploy.places import DEPLOY

DOCKERFILE = DEPLOY / "Dockerfile"


@dataclass(frozen=True)
class Instruction:
    word: str
    rest: str

    @property
    def array(self) -> list[str]:
        """The exec form. Fails for the shell form, which would put a shell between the engine's signals and us."""
        found = json.loads(self.rest[self.rest.index("[") :])
        assert all(isinstance(one, str) for one in found)
        return list(found)


def stages() -> list[list[Instruction]]:
    """The instructions of each stage; what stands before the first FROM comes first."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    found: list[list[Instruction]] = [[]]
    for line in re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, rest.strip()))
    return found


def last(word: str) -> Instruction:
    return [one for one in stages()[-1] if one.word == word][-1]
