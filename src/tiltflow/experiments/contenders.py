"""Who is compared: every method in the shared setting, and in its authors' own where it is known.

Shared are chains, local steps, the network, the rows, the learning rate, and one length: a tenth
of the target's narrowest variance (`narrowest.py`) is the Langevin step size of all methods that
do not adapt their own, and the variance of the noise of those that add some to the rows. Carbone
et al. (2023) move by h = .1 where modes have unit variance. It widens a mode by a twentieth, and
noise of that variance by a tenth; ten such steps cross it.

The authors' settings are those of their released code or paper, as far as they are known; step
sizes made for images are not taken over. (Du and Mordatch 2019: restarts of one chain in twenty.
Xie et al. 2022: 30 steps without noise, each bounded by .1, and learning rates of .0001. Gao et al.
2020: learning rates .001 of energy and log Z, .0007 of the flow. Carbone et al. 2023: ten thousand
walkers, one step an update. OuYang et al. 2026: 128 levels, learning rate .001; the rest of theirs
is in `training/diffusion_classifier.py`.) Theirs is also a flow that stands on one normal. Of the
others nothing is known that the shared setting does not have.

Where the target is a Gaussian mixture, whatever stands on a fitted one is handed the answer. So
the flow that is a *base*, of neural transport and of the paper's own form, stands on one Gaussian.
The flow that proposes, or contrasts, or is taught stands on a mixture in the shared setting: what
the energy learns does not depend on it. The flow alone is entered on both.

The list is in the order of the table, and a further method is a further line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, TypeVar, runtime_checkable

import equinox as eqx
from jaxtyping import PRNGKeyArray

from tiltflow.data.errors import InputError
from tiltflow.experiments.exact_negatives import GridNegatives, TruthNegatives
from tiltflow.models.energies import Energy, MLPEnergy
from tiltflow.models.noise_energies import NoiseMLPEnergy
from tiltflow.training.balanced import Balanced
from tiltflow.training.contrastive import Contrastive
from tiltflow.training.cooperative import Cooperative
from tiltflow.training.denoising_score_matching import DenoisingScoreMatching
from tiltflow.training.diffusion_classifier import DiffusionClassifier
from tiltflow.training.flow_contrastive import FlowContrastive
from tiltflow.training.jarzynski import Jarzynski
from tiltflow.training.methods import Objective, Source
from tiltflow.training.neural_transport import NeuralTransport
from tiltflow.training.persistent import Persistent
from tiltflow.training.sliced_score_matching import SlicedScoreMatching

REFERENCE = "balanced"
"""The method whose evaluations and seconds the others are given."""

NEAR = (REFERENCE, "flow_contrastive", "flow", "floor")
"""Methods so near to the reference that every seed is needed to tell them apart."""

SHARPER = 3.0
"""Times the usual size of the first layer's weights and biases, in the plane.

Modes are a tenth of the data wide there, and a network that starts smooth takes long to be as
sharp: with exact negatives, four rings were at .39 nats of KL after 500 steps, and at .035 so.
"""

BASE_SHARE = 0.05
"""Of the base in the proposals of `balanced`. Without it an energy of four rings dug a hole far
outside of the data, with all of the mass in it, where no chain and no draw of the flow was."""

Sharp = TypeVar("Sharp", MLPEnergy, NoiseMLPEnergy)


@runtime_checkable
class Named(Protocol):
    """Whatever may be entered in a comparison."""

    @property
    def name(self) -> str:
        """The method, as `--methods` calls it."""
        ...


Entered = TypeVar("Entered", bound=Named)
FlowKind = Literal["on a mixture", "on one Gaussian", "the truth"]


@dataclass(frozen=True)
class Shared:
    """What all methods have in common where they have it at all.

    `variance` is the target's narrowest, in model units.
    """

    chains: int = 512
    local_steps: int = 5
    variance: float = 0.1

    @property
    def step_size(self) -> float:
        """Of Langevin steps; the variance of noise as well."""
        return 0.1 * self.variance


def mlp_energy(dimension: int, key: PRNGKeyArray) -> MLPEnergy:
    """The network that all methods train; in the plane its first layer is `SHARPER`."""
    energy = MLPEnergy(dimension, key=key)
    return energy if dimension > 2 else _sharper(energy)


def noise_mlp_energy(dimension: int, key: PRNGKeyArray, levels: int = 16) -> NoiseMLPEnergy:
    """The same network, told a noise level, for the method whose model has many."""
    energy = NoiseMLPEnergy(dimension, levels=levels, key=key)
    return energy if dimension > 2 else _sharper(energy)


def _sharper(energy: Sharp) -> Sharp:
    """With `SHARPER` weights of the point, the first two of the inputs, and biases."""
    first = energy.network.layers[0]
    assert first.bias is not None
    return eqx.tree_at(
        lambda it: (it.network.layers[0].weight, it.network.layers[0].bias),
        energy,
        (first.weight.at[:, :2].multiply(SHARPER), SHARPER * first.bias),
    )


@dataclass(frozen=True)
class Contender:
    """One row of the comparison: a method in a setting, and what it is given.

    `method` is None for the flow alone, by maximum likelihood. `flow` is what the flow that the
    method is given, fitted to the rows, stands on, None if it is given none; `base`, what the
    energy tilts, is one Gaussian, or that flow. `held_out`: its best state on held-out rows is
    kept, for which its flow must know log Z. `polished`: its last layer is solved for in the end.
    `same_steps`: it takes as many steps as the reference, whatever they cost.
    """

    name: str
    setting: str
    method: Source | Objective | None
    base: Literal["gaussian", "flow"] = "gaussian"
    flow: FlowKind | None = None
    held_out: bool = False
    polished: bool = False
    same_steps: bool = False
    learning_rate: float | None = None
    energy: Callable[[int, PRNGKeyArray], Energy] = mlp_energy

    def __post_init__(self) -> None:
        """Raises `InputError` where a base, or a contender without a method, lacks its flow."""
        if self.flow is None and (self.base == "flow" or self.method is None):
            raise InputError(f"flow: found None; {self.name} ({self.setting}) needs one")


def contenders(dimension: int, shared: Shared) -> tuple[Contender, ...]:
    """All of them, the reference first and the floor last."""
    chains, steps, h = shared.chains, shared.local_steps, shared.step_size
    mixture, gaussian = "on a mixture", "on one Gaussian"
    return (
        Contender(
            REFERENCE,
            "shared",
            Balanced(chains, steps, base_share=BASE_SHARE),
            flow=mixture,
            held_out=True,
            polished=True,
        ),
        # A flow is dear to differentiate, and global moves cross it at once; it is near the data,
        # and large steps would lose it. It proposes as well, so that there is nothing to defend.
        Contender(
            REFERENCE,
            "flow as base",
            Balanced(chains, max(1, steps // 3)),
            base="flow",
            flow=gaussian,
            held_out=True,
            polished=True,
            same_steps=True,
            learning_rate=1e-3,
        ),
        Contender("cd", "shared", Contrastive(chains, steps, h)),
        Contender("pcd", "shared", Persistent(chains, steps, h)),
        Contender("pcd", "MALA", Persistent(chains, steps, h, kernel="mala")),
        Contender("pcd", "restarts", Persistent(chains, steps, h, restart_rate=0.05)),
        Contender(
            "neural_transport",
            "shared",
            NeuralTransport(chains, leapfrog_steps=5, local_steps=max(1, steps // 5)),
            base="flow",
            flow=gaussian,
            learning_rate=1e-3,
        ),
        Contender("cooperative", "shared", Cooperative(chains, steps, h), flow=mixture),
        Contender(
            "cooperative",
            "authors'",
            Cooperative(chains, 30, h, noise=False, flow_learning_rate=1e-4),
            flow=gaussian,
            learning_rate=1e-4,
        ),
        Contender("flow_contrastive", "shared", FlowContrastive(), flow=mixture),
        Contender(
            "flow_contrastive",
            "authors'",
            FlowContrastive(flow_learning_rate=7e-4, log_z_learning_rate=1e-3),
            flow=gaussian,
            learning_rate=1e-3,
        ),
        Contender("jarzynski", "shared", Jarzynski(chains, h, local_steps=steps)),
        Contender("jarzynski", "authors'", Jarzynski(10_000, h, local_steps=1)),
        Contender("denoising_score_matching", "shared", DenoisingScoreMatching(h**0.5)),
        Contender("sliced_score_matching", "shared", SlicedScoreMatching()),
        Contender(
            "diffusion_classifier",
            "shared",
            DiffusionClassifier(smallest=h**0.5),
            energy=noise_mlp_energy,
        ),
        Contender(
            "diffusion_classifier",
            "authors'",
            DiffusionClassifier(smallest=h**0.5),
            learning_rate=1e-3,
            energy=partial(noise_mlp_energy, levels=128),
        ),
        Contender("flow", mixture, None, flow=mixture),
        Contender("flow", gaussian, None, flow=gaussian),
        floor(dimension, shared),
    )


def floor(dimension: int, shared: Shared) -> Contender:
    """The statistical floor, without chains: the reference with negatives from who knows more.

    In the plane from a grid; above from draws of the truth, and it is judged what to keep and
    polished by those too.
    """
    if dimension == 2:
        exact = GridNegatives(draws=8 * shared.chains)
        return Contender(
            "floor",
            "exact negatives",
            exact,
            flow="on a mixture",
            polished=True,
            same_steps=True,
        )
    return Contender(
        "floor",
        "draws of the truth",
        TruthNegatives(draws=8 * shared.chains),
        flow="the truth",
        held_out=True,
        polished=True,
        same_steps=True,
    )


def first_settings(known: tuple[Contender, ...]) -> tuple[Contender, ...]:
    """Every method once, in the setting that comes first."""
    return tuple({each.name: each for each in reversed(known)}[name] for name in _names(known))


def choose(known: tuple[Entered, ...], methods: tuple[str, ...] | None) -> tuple[Entered, ...]:
    """Those of the methods called, in all of their settings; all if None.

    Raises:
        InputError: a name is not known.
    """
    names = _names(known)
    for name in methods or ():
        if name not in names:
            raise InputError(f"--methods: '{name}' is not known; use some of {', '.join(names)}")
    return tuple(each for each in known if methods is None or each.name in methods)


def _names(known: tuple[Entered, ...]) -> list[str]:
    return list(dict.fromkeys(each.name for each in known))
