"""The product with a defect put into it: a copy of its packages with a few lines exchanged, run instead of the real ones.

So the defect is in the code that runs, and nothing of it is in the code that ships. A line that is no longer there, or
is there twice, is an error: a defect that was not put in would prove nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.sandbox import Sandbox

ROOT = Path(__file__).parents[3]
PACKAGES = ("orchestrator", "sandbox")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Lines of a file, and what stands there instead."""

    file: str
    before: str
    after: str


# At the swap the old worker is killed, whatever it has in its hands.
OLD_WORKER_KILLED = (
    Exchange(
        "orchestrator/control/executor.py",
        '"type": "retire"',
        '"type": "kill"',
    ),
)

# The reload event is sent 100 ms before the gateways are told.
ACKNOWLEDGED_EARLY = (
    Exchange(
        "orchestrator/control/executor.py",
        """\
        await self._reports.publish()
        if new:
            self._reports.reloads.live(before, routed, self._reports.routed_workers(), began)
""",
        """\
        if new:
            self._reports.reloads.live(before, routed, self._reports.routed_workers(), began)
            await asyncio.sleep(0.1)
        await self._reports.publish()
        if new:
            pass
""",
    ),
)

# A worker closes a connection that was idle for a moment, as servers do by their keep-alive timeout.
IDLE_CLOSED_BY_WORKER = Exchange(
    "sandbox/connection.py",
    """\
        finally:
            self._task = None
""",
    """\
        finally:
            self._task = None
            transport = self._transport
            asyncio.get_running_loop().call_later(
                0.002, lambda: None if self._task is not None or self._parser.buffered else transport.close()
            )
""",
)

# The gateway takes a request that never started for one whose worker died.
NO_RETRY = (
    Exchange(
        "orchestrator/gateway/forward.py",
        "                    case NeverStarted() if call.rest is None:\n",
        "                    case NeverStarted() if not isinstance(error, NeverStarted):\n",
    ),
    Exchange(
        "orchestrator/gateway/exchange.py",
        "        never = isinstance(failure, NeverStarted)\n",
        "        never = isinstance(failure, NeverStarted) and not failure.args\n",
    ),
)

# No defect, but a pause point: where a file `pause` lies in the sandbox's folder, the next swap renames it to `paused`,
# with its candidate ready, and goes on once that is gone.
PAUSED_BEFORE_SWAP = (
    Exchange(
        "orchestrator/control/executor.py",
        "        if state.stopping:\n            return  # the gateways have let go",
        """\
        import os

        pause = os.path.join(self._world.state, "pause")
        if os.path.exists(pause):
            os.rename(pause, f"{pause}d")
        while os.path.exists(f"{pause}d"):
            await asyncio.sleep(0.01)
        if state.stopping:
            return  # the gateways have let go""",
    ),
)


def copy(folder: Path, exchanges: Sequence[Exchange]) -> Path:
    """A copy of the packages in `folder`, with these exchanges made."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for each in exchanges:
        text = (folder / each.file).read_text()
        assert text.count(each.before) == 1, f"{each.file} has {text.count(each.before)} times:\n{each.before}"
        (folder / each.file).write_text(text.replace(each.before, each.after))
    return folder


def run_instead(sandbox: Sandbox, exchanges: Sequence[Exchange]) -> None:
    """Have every command of this sandbox, and all that it starts, run a copy with these exchanges made."""
    sandbox.environ["PYTHONPATH"] = str(copy(sandbox.root / "mutant", exchanges))
