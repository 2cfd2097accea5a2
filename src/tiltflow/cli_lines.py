"""What commands print: one line on stderr, and the verdict of a fit."""

import sys
from typing import Any


def say(what: Warning | Exception | str) -> None:
    """One line on stderr."""
    message = " ".join(str(what).split()) or type(what).__name__
    print(f"tiltflow: {message}", file=sys.stderr)


def print_verdict(estimator: Any) -> None:
    """The verdict and its reasons, on stdout."""
    print(f"verdict                  {estimator.verdict_.status}")
    for reason in estimator.verdict_.reasons:
        print(f"  {reason}")
