"""FFJORD in PyTorch as its authors designed it, for a benchmark: torchdiffeq and Adam.

The field is that of `models/vector_fields.py` with the same weights, the equation that of
`models/integration.py`, the trace Hutchinson's by one product from the left, e^T (df/dx) e, with
Gaussian noise drawn once for a solve (Grathwohl et al. 2019; github rtqichen/ffjord), and Adam
decays weights as its toy example does. torchdiffeq (Chen 2018) chooses one step size for a batch.
Needs the packages torch and torchdiffeq.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torchdiffeq  # pyright: ignore[reportMissingImports]
from jaxtyping import Float

from tiltflow.models.continuous import ContinuousFlow
from tiltflow.models.vector_fields import ConcatSquash, ConcatSquashField

WEIGHT_DECAY = 1e-5


class Calls(NamedTuple):
    """How often the field was called on the way to the loss, and on the way back."""

    forward: float
    backward: float


class TorchConcatSquash(torch.nn.Module):
    """One layer, (W x + b) * sigmoid(a t + c) + e t."""

    def __init__(self, layer: ConcatSquash):
        super().__init__()
        outputs, inputs = layer.linear.weight.shape
        self.linear = torch.nn.Linear(inputs, outputs)
        bias = layer.linear.bias
        assert bias is not None
        self.linear.weight = _parameter(layer.linear.weight)
        self.linear.bias = _parameter(bias)
        self.gate_slope = _parameter(layer.gate_slope)
        self.gate_bias = _parameter(layer.gate_bias)
        self.drift = _parameter(layer.drift)

    def forward(self, t: Any, x: Any) -> Any:
        """The layer at a batch."""
        gate = torch.sigmoid(self.gate_slope * t + self.gate_bias)
        return self.linear(x) * gate + self.drift * t


class TorchFlow(torch.nn.Module):
    """The field with its trace as one system of equations, and the likelihood by it."""

    def __init__(self, flow: ContinuousFlow, *, adjoint: bool):
        super().__init__()
        assert isinstance(flow.field, ConcatSquashField)
        self.layers = torch.nn.ModuleList(TorchConcatSquash(each) for each in flow.field.layers)
        self.log_end_time = _parameter(flow.log_end_time)
        self.tolerance = flow.integration.tolerance
        self.solve = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        self.noise: Any = None
        self.calls = 0

    def velocity(self, s: Any, x: Any) -> Any:
        """T f(T s, x)."""
        end_time = self.log_end_time.exp()
        hidden = x
        for i, layer in enumerate(self.layers):
            hidden = layer(end_time * s, torch.tanh(hidden) if i else hidden)
        return end_time * hidden

    def forward(self, s: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        """Velocity and trace, as the solver asks for them."""
        self.calls += 1
        with torch.enable_grad():
            x = state[0].requires_grad_(True)
            velocity = self.velocity(s, x)
            (product,) = torch.autograd.grad(velocity, x, self.noise, create_graph=True)
        return velocity, (product * self.noise).sum(dim=1)

    def loss(self, x: Any, noise: Any = None) -> Any:
        """The mean negative log-likelihood on a standard normal base."""
        self.noise = torch.randn_like(x) if noise is None else noise
        z, log_det = self.solve(
            self,
            (x, torch.zeros(len(x))),
            torch.tensor([1.0, 0.0]),
            rtol=self.tolerance,
            atol=self.tolerance,
            method="dopri5",
        )
        log_base = -0.5 * (z[-1] ** 2).sum(dim=1) - 0.5 * x.shape[1] * math.log(2 * math.pi)
        return -(log_base + log_det[-1]).mean()


class Training:
    """A flow with its optimiser; a step is what the benchmark times."""

    def __init__(self, flow: ContinuousFlow, *, adjoint: bool, learning_rate: float):
        self.flow = TorchFlow(flow, adjoint=adjoint)
        self.optimiser = torch.optim.Adam(
            self.flow.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY
        )

    def step(self, batch: Float[np.ndarray, "b d"]) -> Calls:
        """Loss, gradient and update."""
        self.optimiser.zero_grad()
        self.flow.calls = 0
        loss = self.flow.loss(torch.from_numpy(batch))
        forward = self.flow.calls
        loss.backward()
        self.optimiser.step()
        return Calls(forward, self.flow.calls - forward)

    def loss(self, batch: Float[np.ndarray, "b d"], noise: Float[np.ndarray, "b d"]) -> float:
        """The loss with given noise."""
        return float(self.flow.loss(torch.from_numpy(batch), torch.from_numpy(noise)).detach())


def versions() -> str:
    """Of the packages, and how many threads PyTorch takes."""
    return (
        f"torch {torch.__version__} ({torch.get_num_threads()} thread(s)), "
        f"torchdiffeq {torchdiffeq.__version__}"
    )


def _parameter(array: jnp.ndarray) -> Any:
    return torch.nn.Parameter(torch.from_numpy(np.array(array)))
