"""Settings as command-line flags, and a parser that tells a mistake in one line."""

import argparse
from collections.abc import Iterable
from typing import NoReturn

from ark_trio.settings.declare import Row
from ark_trio.settings.parse import expected
from ark_trio.settings.render import default_text

USAGE_ERROR = 2


class LineParser(argparse.ArgumentParser):
    """argparse without its page of usage on a mistake, and without guessing at abbreviations."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to look; exit 2."""
        self.exit(USAGE_ERROR, f"ark-trio: {' '.join(message.split())} (see {self.prog} --help)\n")


def add_setting_flags(parser: argparse.ArgumentParser, shown: Iterable[Row]) -> None:
    """Give a parser the flags of some settings. Each arrives under its dotted key, and only when typed."""
    group = parser.add_argument_group("settings")
    for row in shown:
        takes = f"{row.spec.help} Takes {expected(row)}. [{row.env}; default {default_text(row)}]"
        flag = group.add_argument(
            row.flag,
            dest=row.key,
            metavar=row.field.upper(),
            default=argparse.SUPPRESS,
            help=takes.replace("%", "%%"),
        )
        if row.type is bool:  # a truth may be given bare: --insecure is --insecure=1
            flag.nargs, flag.const = "?", "1"
