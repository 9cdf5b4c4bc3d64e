"""Shell completion, generated from the parser by shtab. It knows no command."""

from __future__ import annotations

import argparse


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What `eval "$(sandbox completion bash)"` runs."""
    import shtab

    text: str = shtab.complete(parser, shell=shell)
    return text
