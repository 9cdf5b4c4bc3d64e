"""Records anew what Compose makes of every case: `python -m tests.unit.spec.compose`."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.unit.spec.compose import case, peer


def main() -> None:
    reason = peer.missing()
    if reason is not None:
        sys.exit(reason)
    files, texts = case.cases(), case.texts()
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip((each.name for each in files), pool.map(peer.config, files), strict=True))
        singly = pool.map(lambda text: peer.values([text])[0], texts)
        found |= dict(zip((each.name for each in texts), singly, strict=True))
    case.RECORDED.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    refused = sum(value == case.ERROR for value in found.values())
    print(f"{len(found)} cases, {refused} of them refused by Compose")


if __name__ == "__main__":
    main()
