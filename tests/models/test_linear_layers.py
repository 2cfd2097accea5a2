"""Linear layers: what they compute is linear, inverts, and has the determinant they say.

In float64, against the dense Jacobian by autodiff.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiltflow.data.errors import InputError
from tiltflow.models.convolution import MOST_DENSE, Convolution, Squeeze
from tiltflow.models.flows import trainable
from tiltflow.models.linear_layers import ActNorm, linear_layer

D = 5
KEY = jax.random.key(3)
LAYERS = {
    **{kind: lambda kind=kind: linear_layer(kind, D, key=KEY) for kind in ("full", "lower", "lu")},
    "upper": lambda: linear_layer("upper", D, key=KEY),
    "actnorm": lambda: ActNorm(D),
    "circular": lambda: Convolution((4, 5, 2), 3, key=KEY),
    "zero": lambda: Convolution((4, 5, 2), 3, padding="zero", key=KEY),
    "channels": lambda: Convolution((2, 3, 3), 1, key=KEY),
    "squeeze": lambda: Squeeze((4, 6, 2)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def moved(layer, noise=0.15):
    """The layer with its parameters moved by N(0, noise^2)."""
    rng = np.random.default_rng(1)
    parameters, static = trainable(layer)
    return eqx.combine(
        jax.tree.map(lambda x: jnp.asarray(x + noise * rng.normal(size=x.shape)), parameters),
        static,
    )


@eqx.filter_jit
def look(layer):
    """Where random points, the origin and unit vectors go, and where the first come from."""
    (d,) = layer.shape
    x = jax.random.normal(jax.random.key(0), (3, d))
    y = jax.vmap(layer.transform)(jnp.concatenate([x, jnp.zeros((1, d)), jnp.eye(d)]))
    back = jax.vmap(layer.inverse)(y[:3])
    return x, y[:3], back, y[3], (y[4:] - y[3]).T, layer.log_abs_det()


@every_layer
def test_it_is_linear_inverts_and_says_its_determinant(name):
    x, y, back, shift, matrix, log_abs_det = map(np.asarray, look(moved(LAYERS[name]())))
    np.testing.assert_allclose(y, x @ matrix.T + shift, atol=1e-12)
    np.testing.assert_allclose(back, x, atol=1e-9)
    expected = np.linalg.slogdet(matrix)[1]
    assert name == "squeeze" or abs(expected) > 0.05
    np.testing.assert_allclose(log_abs_det, expected, atol=1e-9)


@every_layer
def test_it_starts_as_a_rotation(name):
    matrix = np.asarray(look(LAYERS[name]())[4])
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-9)


def test_flowjax_gets_both_at_once():
    layer, x = moved(LAYERS["lower"]()), jnp.arange(1.0, D + 1)
    y, log_det = layer.transform_and_log_det(x)
    back, inverse_log_det = layer.inverse_and_log_det(y)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose([log_det, -inverse_log_det], float(layer.log_abs_det()), atol=1e-12)


def test_a_wrong_fourier_matrix_is_caught():
    """Mutants: the kernel not centred keeps the determinant and loses the inverse, transposed
    channels too; padding confused changes the determinant."""
    layer = moved(LAYERS["circular"]())

    class Uncentred(Convolution):
        def _frequencies(self):
            wide = jnp.zeros((4, 5, 2, 2)).at[:3, :3].set(self.kernel)
            return jnp.swapaxes(jnp.conj(jnp.fft.fft2(wide, axes=(0, 1))), 2, 3)

    class Transposed(Convolution):
        def _frequencies(self):
            return jnp.swapaxes(super()._frequencies(), 2, 3)

    for mutant in (Uncentred, Transposed):
        wrong = mutant((4, 5, 2), 3, key=KEY)
        wrong = eqx.tree_at(lambda it: (it.kernel, it.bias), wrong, (layer.kernel, layer.bias))
        x = jnp.arange(40.0)
        assert np.abs(eqx.filter_jit(wrong.inverse)(layer.transform(x)) - x).max() > 0.1
    zero = Convolution((4, 5, 2), 3, padding="zero", key=KEY)
    zero = eqx.tree_at(lambda it: (it.kernel, it.bias), zero, (layer.kernel, layer.bias))
    assert abs(float(zero.log_abs_det() - layer.log_abs_det())) > 0.05


def test_a_convolution_is_that_of_the_formula():
    layer = moved(LAYERS["circular"]())
    kernel, image = np.asarray(layer.kernel), np.random.default_rng(0).normal(size=(4, 5, 2))
    expected = np.zeros((4, 5, 2))
    for a in range(3):
        for b in range(3):
            expected += np.roll(image, (1 - a, 1 - b), (0, 1)) @ kernel[a, b]
    seen = layer.transform(jnp.asarray(image.reshape(-1))).reshape(4, 5, 2)
    np.testing.assert_allclose(seen, expected + np.asarray(layer.bias), atol=1e-12)


def test_squeeze_keeps_blocks_together():
    image = np.arange(16.0).reshape(4, 4, 1)
    squeezed = np.asarray(Squeeze((4, 4, 1)).transform(jnp.asarray(image.ravel())))
    np.testing.assert_array_equal(squeezed.reshape(2, 2, 4)[0, 0], [0, 1, 4, 5])


def test_actnorm_normalises_and_leaves_constants_alone():
    x = np.random.default_rng(0).normal([3.0, -1.0, 2.0], [0.1, 5.0, 0.0], (200, 3))
    layer = ActNorm(3).normalising(jnp.asarray(x))
    y = np.asarray(jax.vmap(layer.transform)(jnp.asarray(x)))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(y.std(0), [1, 1, 0], atol=1e-9)
    assert np.isfinite(layer.log_scale).all()


def test_what_is_fixed_is_not_trained():
    parameters = trainable(linear_layer("lu", D, key=KEY))[0]
    assert parameters.order is None
    assert parameters.signs is None
    assert jax.tree.leaves(trainable(Squeeze((2, 2, 1)))[0]) == []


@pytest.mark.parametrize("kind", ["full", "lu"])
def test_two_layers_of_one_structure_are_one_to_the_compiler(kind):
    def shapes(seed):
        return eqx.filter_eval_shape(
            lambda key: linear_layer(kind, D, key=key), jax.random.key(seed)
        )

    assert eqx.tree_equal(shapes(0), shapes(1))


def test_bad_input_is_refused():
    side = MOST_DENSE
    for size in (2, 5, 0):
        with pytest.raises(InputError, match="odd number from 1 to 4"):
            Convolution((4, 4, 1), size, key=KEY)
    with pytest.raises(InputError, match="circular"):
        Convolution((side, 3, 1), 3, padding="zero", key=KEY)
    with pytest.raises(InputError, match="even height and width"):
        Squeeze((3, 4, 1))
    with pytest.raises(InputError, match="use full, lower, upper or lu"):
        linear_layer("qr", D, key=KEY)
