"""Lessons of the sampler's flow: for how long, and which state of it is kept.

The flow learns while the acceptance rate of its draws grows and is not excellent, or while the
chains still spread: a flow that was best for less than there is must not be kept. Whether they
spread is told by the moments along each chain, compared between two halves of the last lessons;
the chains are independent of each other, so that their differences give the error.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, PyTree

from tiltflow.sampling.sweep import Recording
from tiltflow.training.adaptive_sweeps import WarmUpSettings, WarmUpState
from tiltflow.training.steps import copy_arrays

FIRST_CHUNKS = 2
"""Chunks over which the learning rate rises."""
DRIFT_CHUNKS, FEWEST_DRIFT_CHUNKS = 32, 8
DRIFTING = 4.5
"""Standard errors; of hundreds of moments at rest the largest is hardly ever that far."""
EXCELLENT = 0.95
"""At such an acceptance rate there is nothing left to learn that the chains would feel."""


Lesson = Callable[..., tuple[WarmUpState, Recording]]
"""One chunk of sweeps: (index, state, rate=...) -> the state after it, and the record."""


def teach(
    lesson: Lesson, state: WarmUpState, settings: WarmUpSettings
) -> tuple[WarmUpState, PyTree, Float[np.ndarray, " n"]]:
    """The state after the lessons, the flow's moving average at its best, the chains' log-weights.

    The log-weights are those before the last sweep.
    """
    best, best_rate, stale = copy_arrays(state.flow.average), 0.0, 0
    at_chains, past = np.zeros(0), []
    for index in range(settings.flow_chunks):
        rate = settings.learning_rate * min(1.0, (index + 1) / FIRST_CHUNKS)
        state, recording = lesson(index, state, rate=rate)
        at_chains = last_log_weights(recording)
        past = [*past[1 - DRIFT_CHUNKS :], moments(recording)]
        accepted = acceptance(recording)
        drifts = drift(past) > DRIFTING
        if accepted > best_rate or drifts:
            best, best_rate, stale = copy_arrays(state.flow.average), accepted, 0
        else:
            stale += 1
        rests = len(past) >= FEWEST_DRIFT_CHUNKS and not drifts
        if stale >= settings.patience or (rests and best_rate > EXCELLENT):
            break
    return state, best, at_chains


def last_log_weights(recording: Recording) -> Float[np.ndarray, " n"]:
    """log_density - log q at the chains before the last sweep."""
    return np.asarray(recording.log_ratio)[-1]


def acceptance(recording: Recording) -> float:
    """The mean acceptance rate of the global moves."""
    return float(np.asarray(recording.global_acceptance_rate).mean())


def moments(recording: Recording) -> Float[np.ndarray, "n moments"]:
    """The mean of every coordinate and of its square along each chain."""
    position = np.asarray(recording.position, dtype=float)
    return np.concatenate([position.mean(axis=0), (position**2).mean(axis=0)], axis=1)


def drift(past: list[Float[np.ndarray, "n moments"]]) -> float:
    """The largest difference of a moment between two halves of the chunks, in standard errors."""
    if len(past) < FEWEST_DRIFT_CHUNKS:
        return 0.0
    half = len(past) // 2
    difference = np.mean(past[half:], axis=0) - np.mean(past[:half], axis=0)
    error = difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
    return float(np.max(np.abs(difference.mean(axis=0)) / np.maximum(error, np.finfo(float).tiny)))
