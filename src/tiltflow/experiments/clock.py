"""Seconds of work: what methods that share a machine with others can be compared by.

On processors the time that this process kept them busy, which does not grow when other programs
run beside it (it counts every core, so that it can exceed what a user waits for); on an accelerator
the time that passed.
"""

import time

import jax


def clock() -> float:
    """Seconds from an arbitrary start; differences are what counts."""
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()
