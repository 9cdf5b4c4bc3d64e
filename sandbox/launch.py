"""What `PYTHON -I -B GUEST_FOLDER …` runs: the agent, or what an agent spawns. It only tells them apart."""

from __future__ import annotations

import sys

from sandbox import start
from sandbox.children import FIRST


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "zygote":
        from sandbox import zygote

        zygote.main(start.take_job(), FIRST)
    elif what == "child":
        start.run(start.take_job(), start.Ends(*range(FIRST, FIRST + len(start.Ends._fields))))
    else:
        from sandbox import agent

        agent.main(what)
