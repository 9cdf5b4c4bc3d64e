"""Nothing is lost, run twice or answered by old code while 200 requests are always in flight over 50 saves."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from tests.e2e.sandbox import Sandbox

SAVES = 50
# Most requests wait in the model, so that two hundred in flight leave the machine some time for anything else.
SLOW, QUICK, FRESH = 168, 20, 12

# Appends the id of each call, in one write, to a file that outlives its worker.
RECORDS = """
import asyncio, os
import sandbox

class Records(sandbox.Model):
    def load(self):
        self.ran = os.open(self.data_dir / "ran.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    async def predict(self, id: str, wait: float) -> int:
        os.write(self.ran, (id + "\\n").encode())
        await asyncio.sleep(wait)
        return VERSION
"""


def version(number: int) -> str:
    return f"VERSION = {number}\n{RECORDS}"


@pytest.mark.timeout(300)
def test_no_request_is_lost_or_run_twice_or_answered_by_old_code_over_fifty_saves(sandbox: Sandbox) -> None:
    sandbox.model("records", version(0))
    ran = sandbox.data("records") / "ran.txt"
    sandbox.spec({"records": {"data": "rw", "concurrency": 512}})
    sandbox.up()
    slow = sandbox.load("records", lambda name: {"id": f"slow-{name}", "wait": 0.4}, keep=SLOW, fresh=0)
    quick = sandbox.load("records", lambda name: {"id": f"quick-{name}", "wait": 0.02}, keep=QUICK, fresh=FRESH)

    acknowledged = []
    with slow.running(), quick.running():
        for number in range(1, SAVES + 1):
            event = sandbox.edit("records/main.py", version(number))
            acknowledged.append((event["seen"], event["data"]["generation"]))

    samples = [*slow.samples, *quick.samples]
    assert [each for each in samples if each.status != 200] == []
    assert slow.stale(acknowledged) == quick.stale(acknowledged) == []
    times = Counter(ran.read_text().split())
    asked = [f"slow-{each.id}" for each in slow.samples] + [f"quick-{each.id}" for each in quick.samples]
    assert times == Counter(asked)
    generations = [number for _, number in acknowledged]
    assert all(later > earlier for earlier, later in itertools.pairwise(generations))
    assert len({each.generation for each in samples}) > SAVES // 2
    # What each answer says is what that generation's code says.
    said = dict(zip(generations, range(1, SAVES + 1), strict=True))
    wrong = [each for each in samples if said.get(each.generation, 0) != each.body["data"]["prediction"]]
    assert wrong == []
