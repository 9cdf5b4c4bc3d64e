"""Measures: `make bench` measures everything and writes docs/benchmarks.md, `python -m tests.bench PART` prints a part.

Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime

from tests.bench import gateway, predict, reload, startup, watching
from tests.bench.project import ROOT

PARTS = {
    "reload": ("From a save to the first new answer", reload),
    "watching": ("A save in a large directory", watching),
    "startup": ("Starting and stopping", startup),
    "gateway": ("The gateway beside other proxies", gateway),
    "predict": ("Predictions end to end, beside other servers", predict),
}

HEAD = """# Benchmarks

Written by `make bench`; every figure comes from a program in `tests/bench` that anyone can run, also by parts:
`python -m tests.bench reload --models stdlib --rows process,docker,compose-sync-restart`. Timings of a shared machine
vary from run to run: compare within one run.

- Date: {date}
- Commit: {commit}
- Machine: {machine}

"""


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model or platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}"


def everything() -> None:
    """Measure all parts and write docs/benchmarks.md."""
    text = HEAD.format(
        date=datetime.now(UTC).strftime("%Y-%m-%d"), commit=_git("rev-parse", "--short", "HEAD"), machine=_machine()
    )
    for title, module in PARTS.values():
        began = time.monotonic()
        print(f"{title} ...", flush=True)
        text += f"## {title}\n\n{module.explained()}\n\n{module.run()}\n"
        print(f"{title}: {time.monotonic() - began:.0f} s", flush=True)
    path = ROOT / "docs" / "benchmarks.md"
    path.write_text(text.rstrip("\n") + "\n")
    print(f"wrote {path.relative_to(ROOT)}")


def main(words: list[str]) -> None:
    if not words:
        everything()
    elif words[0] in PARTS:
        PARTS[words[0]][1].main(words[1:])
    else:
        sys.exit(f"{words[0]}: not one of {', '.join(PARTS)}")


if __name__ == "__main__":
    main(sys.argv[1:])
