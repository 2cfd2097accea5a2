"""The shell door: each command is a dataclass whose fields are its options.

Exit codes: 0 done; 1 the work failed; 2 the input or the arguments were wrong; 70 a fault of
tiltflow itself; 130 and 143 stopped by SIGINT and SIGTERM.
A failure is one line on stderr. Nothing heavy is imported before a command runs.
"""

import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import tyro

from tiltflow.cli_experiments import Bench, Demo, Reproduce
from tiltflow.cli_fit import Fit
from tiltflow.cli_lines import say
from tiltflow.cli_runs import Report, Sample, Score, Watch, Weights
from tiltflow.data.errors import InputError
from tiltflow.data.settings import check_seed
from tiltflow.training.stopping import Stopped

COMMANDS: dict[str, type] = {
    "demo": Demo,
    "fit": Fit,
    "sample": Sample,
    "score": Score,
    "weights": Weights,
    "report": Report,
    "watch": Watch,
    "reproduce": Reproduce,
    "bench": Bench,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments (the process's own if None), run the command, return the exit code."""
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="tiltflow",
            description="Learn a probability density from a table and say how far to trust it.",
            args=argv,
        )
        check_seed("--seed", command.seed)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(message)
            command.run()
    except SystemExit as stop:  # tyro's: 0 after --help, 2 after wrong arguments
        return int(stop.code or 0)
    except InputError as error:
        return _fail(error, 2)
    except Stopped as stop:
        return _fail(f"{stop}; go on by the same command with --resume", stop.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what was written so far is left in place", 130)
    except (RuntimeError, OSError, MemoryError) as error:
        return _fail(error, 1)
    except Exception as error:
        return _fail(_fault(error), 70)
    return 0


def _fault(error: Exception) -> str:
    """What to say of an exception that nothing foresaw: enough for a report of it."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(Path(__file__).parent)
    ]
    return (
        f"{type(error).__name__} in {Path(own[-1].filename).name}, line {own[-1].lineno}: {error}; "
        "this is a fault of tiltflow: report it to its developers, with this line and the command"
    )


def _fail(error: Exception | str, code: int) -> int:
    say(error)
    return code
