"""Measures, and writes docs/benchmarks.md: `make bench`. Nothing else should run on the machine meanwhile."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime

from tests.bench import reload, startup

HEAD = """# Benchmarks

Written by `make bench`; every figure comes from a program in `tests/bench` that anyone can run. Timings of a shared
machine vary from run to run: compare within one run.

- Date: {date}
- Commit: {commit}
- Machine: {machine}

"""


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=reload.ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model or platform.machine()}, {memory:.0f} GiB, Linux {platform.release()}"


def main() -> None:
    text = HEAD.format(
        date=datetime.now(UTC).strftime("%Y-%m-%d"), commit=_git("rev-parse", "--short", "HEAD"), machine=_machine()
    )
    for title, module in (("From a save to the first new answer", reload), ("Starting and stopping", startup)):
        print(f"{title} ...", flush=True)
        text += f"## {title}\n\n{module.explained()}\n\n{module.run()}\n"
    path = reload.ROOT / "docs" / "benchmarks.md"
    path.write_text(text)
    print(f"wrote {path.relative_to(reload.ROOT)}")


if __name__ == "__main__":
    main()
