"""How much work a comparison in the plane is, whole and quick.

Many steps of few chains: the noise of batches and negatives is what holds learning up here. Adam's
steps are as long as ever where noise rules, so that one goes as far by twice the steps as by four
times the chains.
"""

from dataclasses import replace

from tiltflow.experiments.contenders import Contender, Shared, contenders, first_settings
from tiltflow.experiments.narrowest import narrowest_variance
from tiltflow.experiments.trial import Case
from tiltflow.training.loop import Schedule

LONG = Schedule(
    steps=4000, chunk=200, learning_rate=1e-2, batch_size=512, averaging=0.998, patience=1000
)
LARGER = replace(LONG, steps=3000, batch_size=1024, learning_rate=5e-3)
"""Eight narrow modes have few rows each in a small batch: with the other schedule their KL was
.011 on one seed, with this one .006."""

CHAINS, LOCAL_STEPS = 256, 5
QUICK_ROWS, QUICK_CHAINS, QUICK_LOCAL_STEPS, QUICK_FLOW_STEPS = 8000, 512, 3, 600
QUICK_SCHEDULE = replace(LONG, steps=800, batch_size=1024, averaging=0.99, draws=2048)


def budget(case: Case, quick: bool) -> tuple[Case, Shared]:
    """The case and what all methods share in it; both smaller for a `quick` run."""
    variance = narrowest_variance(case.make_target())
    if not quick:
        return case, Shared(CHAINS * case.schedule.batch_size // 512, LOCAL_STEPS, variance)
    smaller = replace(case, rows=QUICK_ROWS, schedule=QUICK_SCHEDULE, flow_steps=QUICK_FLOW_STEPS)
    return smaller, Shared(QUICK_CHAINS, QUICK_LOCAL_STEPS, variance)


def entered_in(shared: Shared, quick: bool) -> tuple[Contender, ...]:
    """All contenders; most of a quick run is compilation, and it leaves out further settings."""
    known = contenders(2, shared)
    return first_settings(known) if quick else known
