"""The lessons end when they bring no more, or when nothing is left to learn; not while it moves."""

import numpy as np
import pytest

from tiltflow.sampling.sweep import Recording
from tiltflow.training.adaptive_sweeps import FlowState, WarmUpSettings, WarmUpState
from tiltflow.training.lessons import FEWEST_DRIFT_CHUNKS, teach

SETTINGS = WarmUpSettings(flow_chunks=40, patience=4)
NOTHING = Recording(*[None] * len(Recording._fields))


def state_of(flow):
    """A state of which only the flow is there, and of that a number."""
    average = FlowState(None, np.array(flow), None, None)
    return WarmUpState(*[None] * len(WarmUpState._fields))._replace(flow=average)


def taught(rates, *, drift=0.0):
    """How many lessons there are, and after which one the flow that is kept was had."""
    generator = np.random.default_rng(0)
    given = []

    def lesson(index, state, *, rate):
        given.append(rate)
        position = generator.normal(size=(16, 50, 2)) + drift * index
        recording = NOTHING._replace(
            position=position,
            log_ratio=np.zeros((16, 50)),
            global_acceptance_rate=np.array(rates(index)),
        )
        return state_of(index + 1), recording

    _, best, _ = teach(lesson, state_of(0), SETTINGS)
    return len(given), int(best), given


@pytest.mark.parametrize(
    ("rates", "lessons", "kept"),
    [
        (lambda index: 0.02 * index, 40, 40),
        (lambda index: 0.5 if index == 2 else 0.4, 7, 3),
        (lambda index: 0.96 + 0.001 * index, FEWEST_DRIFT_CHUNKS, FEWEST_DRIFT_CHUNKS),
    ],
    ids=["while it learns", "with patience", "until it is excellent"],
)
def test_when_lessons_end(rates, lessons, kept):
    assert taught(rates)[:2] == (lessons, kept)


def test_chains_that_still_spread_are_followed_to_the_end():
    lessons, kept, _ = taught(lambda index: 0.96 if index == 7 else 0.01 * index, drift=0.2)
    assert lessons == kept == SETTINGS.flow_chunks


def test_the_rate_rises_first():
    _, _, given = taught(lambda index: 0.9)
    assert given[0] == SETTINGS.learning_rate / 2 and set(given[1:]) == {SETTINGS.learning_rate}
