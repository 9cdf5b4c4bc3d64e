"""PyYAML's parser in Python, with libyaml's interface: for installations of PyYAML without libyaml."""

from __future__ import annotations

from yaml.composer import Composer
from yaml.parser import Parser as EventParser
from yaml.reader import Reader
from yaml.scanner import Scanner


class Parser(Reader, Scanner, EventParser, Composer):
    """Composes nodes; mixed with a resolver as CParser is."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        EventParser.__init__(self)
        Composer.__init__(self)
