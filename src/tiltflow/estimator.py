"""BalancedEBM: the scikit-learn door. Rows in the user's units in, normalised densities out."""

import contextlib
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from sklearn.base import BaseEstimator, DensityMixin, OutlierMixin
from sklearn.utils.validation import check_is_fitted

from tiltflow.data.categories import decode
from tiltflow.data.errors import InputError, reason
from tiltflow.data.preprocessing import to_model_units, to_user_units
from tiltflow.data.scanning import numbers_in_batches
from tiltflow.data.schema import on_grids, text_columns, to_container, to_numbers, to_rows
from tiltflow.data.settings import check_positive, whole_number
from tiltflow.data.streams import Stream
from tiltflow.estimator_arguments import check_arguments, plain_arguments, seed_of
from tiltflow.estimator_files import describe, restore
from tiltflow.estimator_training import train
from tiltflow.evaluation.annealed import LogNormalizerBounds
from tiltflow.evaluation.mode_weights import ModeWeights
from tiltflow.evaluation.smoothed import smoothed_log_density
from tiltflow.evaluation.witnesses import Witnesses
from tiltflow.extreme_rows import find_extremes
from tiltflow.fit_rows import (
    KEPT_ROWS,
    FitRows,
    numbered_rows,
    take_rows,
)
from tiltflow.frozen import (
    FrozenModel,
    bounds_of,
    call_witnesses_of,
    draw_in_batches,
    judge_fit,
    log_prob_of_rows,
    weigh_modes,
)
from tiltflow.loading import load_table, sizes_of, source_of
from tiltflow.memory import check_memory_of_draws
from tiltflow.missing_cells import fill_table
from tiltflow.models.files import read_model, write_model
from tiltflow.outputs import SetOutputMixin, index_of
from tiltflow.sampling.program_room import make_room_for_programs
from tiltflow.training.checkpoints import Checkpoints
from tiltflow.versions import installed_versions

SMOOTHING_DRAWS = 8192


class BalancedEBM(SetOutputMixin, OutlierMixin, DensityMixin, BaseEstimator):
    """A normalised density of a table: a base density tilted by a learned energy.

    Trained by maximum likelihood with negatives from chains that a flow carries between modes
    (Grenioux, Moulines, Gabrié 2023). Densities are in nats and in the user's units. Rows of low
    density are outliers. Text of few levels is a categorical column: a level's density is its
    probability.

    Args:
        base: "gaussian", "mixture", "flow", or "auto", which takes the best on held-out rows.
        preprocessing: "standardise", "whiten", "gaussianise", "gaussianise+whiten", or "auto".
        max_steps: most training steps of the energy; None for a default that follows the base.
        chains: Markov chains that run along; None follows the rows (`training/sizes.py`).
        local_steps: MALA steps of every chain between two flow proposals; None follows the base.
        energy_width: units of each hidden layer of the energy; None follows the rows.
        energy_depth: hidden layers of the energy; None takes 3.
        learning_rate: peak rate of the energy; None for a default that follows the base.
        validation_fraction: share of the rows that is held out to choose and to stop.
        categorical_features: names of columns that are categories whatever they hold, in a list,
            an array or an index; those of text, and of a frame's own categorical kind, are so
            without being named. Whole numbers that are no categories need no name: columns of
            integers are taken for what they are.
        contamination: share of the rows of the fit that `predict` shall call outliers.
        random_state: a seed, from 0 to 4294967295; the same seed on the same machine gives the
            same bits. None, or a generator as scikit-learn takes it, gives others every time.

    Attributes:
        log_normalizer_: log Z of the tilt relative to the base, nats.
        log_normalizer_stderr_: its standard error.
        held_out_log_likelihood_: mean over the held-out rows, nats, user's units.
        held_out_log_likelihood_stderr_: its standard error, over rows and log Z together.
        base_: the base chosen, in words.
        preprocessing_: the preprocessing chosen.
        chains_, energy_width_, energy_depth_: the sizes of the fit (`training/sizes.py`).
        schema_: what the columns are: names, levels, grids.
        levels_: for each categorical column its levels.
        quanta_: grid step of every column, 0 where it is continuous.
        offset_: the log-density below which a row is an outlier: the quantile `contamination` of
            2000 rows of the fit, or of all.
        metrics_: the reports of training, a list of dictionaries.
        importance_ess_: effective share of the flow's draws under the model, from 0 to 1.
        verdict_: whether the figures may be believed: `.status` is "trusted", "doubtful" or
            "failed", `.reasons` says why, `.figures` holds what it was judged by.
        stopped_: what ran away for good during training, or None.
        independent_rows_: how many independent rows of equal weight training had, for the error of
            a share; of a large table those of the sample. None of a model that does not say.
        n_iter_: the training step whose energy was kept; 0 where none gained on the base.
        max_steps_: most training steps of the energy, as chosen; None of a model that does not say.
        local_steps_: MALA steps of every chain between two flow proposals, as chosen.
        versions_: what it was fitted with: Python, packages, system and device.
        n_features_in_, feature_names_in_: as scikit-learn has them.
    """

    def __init__(
        self,
        *,
        base: str = "auto",
        preprocessing: str = "auto",
        max_steps: int | None = None,
        chains: int | None = None,
        local_steps: int | None = None,
        energy_width: int | None = None,
        energy_depth: int | None = None,
        learning_rate: float | None = None,
        validation_fraction: float = 0.15,
        categorical_features: Collection[str] | None = None,
        contamination: float = 0.05,
        random_state: Any = None,
    ):
        self.base = base
        self.preprocessing = preprocessing
        self.max_steps = max_steps
        self.chains = chains
        self.local_steps = local_steps
        self.energy_width = energy_width
        self.energy_depth = energy_depth
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.categorical_features = categorical_features
        self.contamination = contamination
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        on_report: Callable[[dict[str, Any]], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> "BalancedEBM":
        """Fit the density of the rows of X: (n, d), an array or a data frame; y is ignored.

        X may also be the path of a table's file, a lazy polars frame, or a table of Arrow (whatever
        has `__arrow_c_stream__`); so it may for the methods that take rows. Of more than 20 million
        cells, or of more than the machine's memory is enough for, rows are read in batches and
        kept on the disk while the fit runs: in the folder of the checkpoints, or in the system's
        for temporary files. See docs/large_tables.md for what is then computed of a sample.

        `sample_weight`, (n,), says how many rows each stands for, up to a common factor: rows
        enter in that proportion, and one of weight 0 does not. They are repeated, so that a
        weight is rounded at random, and right on average, to eighths of the mean weight; with
        more than 6250 rows to coarser parts, and with more than 25 000 to whole multiples of the
        mean. `on_report` is called with a
        dictionary at every report of training; that of the stage "choice" has what was chosen,
        before the energy is trained. With `checkpoints` a fit that was stopped goes on
        bit for bit, and gives its reports from the start.

        Raises:
            InputError: a ValueError that names what is wrong with X or with an argument.
            TrainingFailed: training ran away from its first state, again and again.
        """
        check_arguments(self)
        make_room_for_programs()
        seed = self._seed()
        with contextlib.ExitStack() as stack:
            rows = take_rows(stack, X, sample_weight, plain_arguments(self), seed, checkpoints)
            self._fit(rows, seed, on_report, checkpoints)
        return self

    def _fit(
        self,
        rows: FitRows,
        seed: int,
        on_report: Callable[[dict[str, Any]], None] | None,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.schema_ = rows.schema
        self._set_columns()
        trained = train(rows, plain_arguments(self), seed, on_report, checkpoints)
        choice = trained.choice
        self.base_, self.preprocessing_ = choice.base, choice.preprocessing
        self.chains_, self.local_steps_ = choice.chains, choice.local_steps
        self.energy_width_, self.energy_depth_ = choice.energy_width, choice.energy_depth
        self.max_steps_ = choice.max_steps
        self._bijection, density = trained.bijection, trained.density
        self._frozen = FrozenModel(
            density.model,
            density.flow,
            density.step_size,
            choice.local_steps,
            density.earlier,
        )
        self.log_normalizer_ = float(density.log_normalizer.log_z)
        self.log_normalizer_stderr_ = float(density.log_normalizer.stderr)
        self.importance_ess_ = float(density.log_normalizer.ess)
        self.metrics_ = density.reports
        self.n_iter_ = density.best_step
        self.stopped_ = None if density.stopped is None else str(density.stopped)
        self.versions_ = installed_versions()
        self.independent_rows_ = rows.independent
        self._kept_rows = rows.kept
        self._judge()
        scores = self._log_prob(rows.held_out)
        self.held_out_log_likelihood_ = float(scores.mean()) - density.flattery
        with np.errstate(invalid="ignore"):  # where a row has -inf there is no deviation
            spread = scores.std()
        self.held_out_log_likelihood_stderr_ = float(
            np.hypot(spread / np.sqrt(rows.independent_held_out), self.log_normalizer_stderr_)
        )
        self.set_offset()
        self._extremes = find_extremes(self._log_prob, *numbered_rows(rows), KEPT_ROWS)
        if self.stopped_:
            warnings.warn(
                f"training ran away and stopped at its last good state: {self.stopped_}",
                RuntimeWarning,
                stacklevel=3,
            )

    def score_samples(self, X: Any) -> Float[np.ndarray, " n"]:
        """Normalised log-density of each row of X, (n, d) -> (n,), nats, user's units.

        What is too large to be held in memory more than once is scored in batches. Rows so far
        out that no number is small enough have -inf.

        Raises:
            InputError: other columns than those of the fit, missing or infinite cells, text.
            NotFittedError: `fit` was not called; so do all methods below.
        """
        return self._of_rows(X, self._log_prob)

    def smoothed_log_density(self, X: Any, scale: float = 1.0) -> Float[np.ndarray, " n"]:
        """Log-density of each row at a coarser scale, (n, d) -> (n,), nats, user's units.

        That of the model convolved with a normal of `scale` standard deviations of every column,
        by 8192 draws of the model, the same every time (`evaluation/smoothed.py`). It ranks
        outliers better than `score_samples` where few rows, or outliers among them, have made
        bumps of their own.

        Raises:
            InputError: as `score_samples`; or `scale` is not positive.
        """
        check_positive(scale=scale)
        draws = self._sample_numbers(SMOOTHING_DRAWS, key=0)
        spread = self._kept_rows.std(axis=0)
        return self._of_rows(X, lambda rows: smoothed_log_density(draws, rows, spread, scale))

    def _of_rows(
        self, X: Any, figure: Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, " n"]]
    ) -> Float[np.ndarray, " n"]:
        """A figure of each row of a table, large ones in batches."""
        check_is_fitted(self)
        source = source_of(X)
        sizes, text = sizes_of(plain_arguments(self)), text_columns(self.schema_)
        X = load_table(X, sizes, keep_text=text)
        if isinstance(X, Stream):
            return np.concatenate([figure(rows) for rows in numbers_in_batches(self.schema_, X)])
        return figure(to_numbers(self.schema_, X, source))

    def score(self, X: Any, y: Any = None) -> float:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Mean log-density of the rows of X, (n, d), nats, user's units; y is ignored.

        Raises as `score_samples` does.
        """
        return float(self.score_samples(X).mean())

    def decision_function(self, X: Any) -> Float[np.ndarray, " n"]:
        """How far each row's log-density is above the bound of outliers, (n, d) -> (n,), nats.

        Raises as `score_samples` does.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Int[np.ndarray, " n"]:
        """1 for every row of X like those of the fit, -1 for every outlier: (n, d) -> (n,).

        Raises as `score_samples` does.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def sample(self, n: SupportsIndex = 1, key: int | None = None) -> Any:
        """Draw n rows of the EBM (not of the flow), (n, d), in the user's units.

        Every row is the end of a Metropolis-corrected chain of its own. Quantised columns come
        back on their grid; with categorical columns, the array is of objects and holds their
        levels. After `set_output` it is a data frame. `key` is a seed; None takes
        `random_state`'s.

        Raises:
            InputError: n is not positive, or more than the machine has memory for; `key` is no
                whole number from 0 to 4294967295.
        """
        rows = on_grids(self.schema_, self._sample_numbers(n, key))
        return to_container(self.schema_, rows, self._container())

    def _sample_numbers(self, n: SupportsIndex, key: int | None) -> Float[np.ndarray, "n d"]:
        check_is_fitted(self)
        n = whole_number("n", n)
        check_memory_of_draws(n, self.n_features_in_)
        z = draw_in_batches(jax.random.key(self._seed(key)), self._frozen, n)
        return to_user_units(self._bijection, z)

    def impute(self, X: Any, key: int | None = None) -> Any:
        """Rows with missing cells (nan), (n, d), each cell drawn given the others of its row.

        One draw for each row, so that columns keep their spread and their dependence; for
        intervals, see `sample_given`. Cells that are there come back as they are. After
        `set_output` it is a data frame, for pandas with the index of X. `key` is a seed; None takes
        `random_state`'s.

        Raises:
            InputError: text or infinite cells, or other columns than those of the fit; `key` as
                for `sample`.
        """
        rows = self._numbers_given(X, 1, key)[:, 0]
        return to_container(self.schema_, rows, self._container(), index_of(X))

    def sample_given(
        self, X: Any, n: SupportsIndex = 1, key: int | None = None
    ) -> Shaped[np.ndarray, "rows n d"]:
        """Draw n rows of p(missing | given) for every row of X, (rows, d), user's units.

        A row of X gives the cells that are numbers, and asks for those that are missing (nan). It
        is an array always.

        The draws are ends of Metropolis-corrected chains; warns where their global moves are so
        rarely accepted that modes may have the wrong share. Raises as `impute` does.
        """
        given = self._numbers_given(X, n, key)
        return decode(given, self.schema_.columns, self.schema_.levels)

    def _numbers_given(
        self, X: Any, n: SupportsIndex, key: int | None
    ) -> Float[np.ndarray, "rows n d"]:
        check_is_fitted(self)
        n = whole_number("n", n)
        source = source_of(X)
        X = load_table(X, {}, whole=True, keep_text=text_columns(self.schema_))
        rows = to_numbers(self.schema_, X, source, missing=True)
        if not len(rows):
            raise InputError(f"{source}: found no rows; give rows with missing cells")
        check_memory_of_draws(n * len(rows), rows.shape[1])
        seed = self._seed(key)
        draws, refused = fill_table(seed, self.schema_, self._frozen, self._bijection, rows, n)
        if refused.any():
            warnings.warn(
                f"{source}: row {int(refused.argmax()) + 1} is one of {int(refused.sum())} rows "
                "where hardly any global move was accepted: what was drawn there may not have the "
                "right share of every mode (is the row like those of the fit?)",
                stacklevel=3,
            )
        return draws

    def mode_weights(
        self, label_fn: Callable[[Shaped[np.ndarray, "n d"]], Any] | None = None
    ) -> ModeWeights:
        """The share of mass of every label, or of every mode, with 95 % intervals.

        `label_fn` takes rows (n, d) in the user's units and returns n labels. Without it, modes
        are the basins of the learned log-density in its own coordinates, by decreasing weight;
        their centres come back in the user's units. `intervals` are of the density's own shares;
        `population_intervals` hold the error of the rows of the fit besides, which are taken as
        independent of each other. How both witnesses are pooled, and the intervals, with sources:
        `evaluation/mode_weights.py`.

        Raises:
            InputError: `label_fn` does not return one label for each row.
        """
        check_is_fitted(self)
        witnesses = self._call_witnesses()
        return weigh_modes(self._frozen, witnesses, self._to_rows, label_fn, self.independent_rows_)

    def log_normalizer_bounds(self, key: int = 0) -> LogNormalizerBounds:
        """Bounds of log Z from below and from above, nats, with their standard errors.

        By annealed paths between the flow and the model (Neal 2001; Grosse, Ghahramani and Adams
        2015); the upper one holds as far as the model's chains are draws of it. `key` is a seed.

        Raises `InputError` where `key` is no whole number from 0 to 4294967295.
        """
        check_is_fitted(self)
        return bounds_of(jax.random.key(self._seed(key)), self._frozen, self._call_witnesses())

    def report(
        self, path: str | Path, label_fn: Callable[[Shaped[np.ndarray, "n d"]], Any] | None = None
    ) -> None:
        """Write the HTML report of the fit to `path`: one file that opens without a network.

        Weights are those of modes, or of labels by `label_fn`, as `mode_weights` takes it. Raises
        `OSError` where the file cannot be written.
        """
        check_is_fitted(self)
        from tiltflow.report.fit_evidence import gather
        from tiltflow.report.fit_report import write_fit_report

        samples = self._sample_numbers(min(KEPT_ROWS, 4 * len(self._kept_rows)), key=0)
        samples = on_grids(self.schema_, samples)
        write_fit_report(Path(path), self, gather(self, samples, label_fn))

    def save(self, path: str | Path) -> None:
        """Write `config.json` and `model.safetensors` into the folder `path`.

        Up to 2000 rows of the fit are among the arrays. Raises `OSError` where it cannot write.
        """
        check_is_fitted(self)
        config, arrays = describe(self)
        write_model(Path(path), config, arrays)

    def _seed(self, key: int | None = None) -> int:
        return seed_of(self.random_state, key)

    def _to_rows(self, z: Float[np.ndarray, "n d"]) -> Shaped[np.ndarray, "n d"]:
        return to_rows(self.schema_, to_user_units(self._bijection, z))

    def _log_prob(self, rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        return log_prob_of_rows(self._frozen.model, self._bijection, self.log_normalizer_, rows)

    def _set_columns(self) -> None:
        """What scikit-learn and the user want to see of the schema."""
        self.feature_names_in_ = np.asarray(self.schema_.columns, dtype=object)
        self.n_features_in_ = len(self.schema_.columns)
        self.levels_ = dict(self.schema_.levels)
        self.quanta_ = self.schema_.quanta

    def set_offset(self) -> None:
        """Set `offset_` anew, after `contamination` was changed."""
        check_is_fitted(self, "_kept_rows")
        # Between a number and -inf there is no quantile.
        scores = np.maximum(self._log_prob(self._kept_rows), np.finfo(float).min)
        self.offset_ = float(np.quantile(scores, self.contamination))

    def __getstate__(self) -> dict[str, Any]:
        """What `save` writes: compiled functions within a model cannot be pickled."""
        if not hasattr(self, "_frozen"):
            return dict(vars(self))
        return {**self.get_params(deep=False), **self._output(), "_stored": describe(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """As `load` does."""
        stored = state.get("_stored")
        vars(self).update({name: it for name, it in state.items() if name != "_stored"})
        if stored is not None:
            config, arrays = stored
            restore(self, config, arrays, "the pickle")

    def _call_witnesses(self) -> Witnesses:
        return call_witnesses_of(self._frozen, self._kept_points())

    def _kept_points(self) -> Float[Array, "n d"]:
        return jnp.asarray(to_model_units(self._bijection, self._kept_rows)[0])

    def _judge(self) -> None:
        """Set the verdict, and log Z by both witnesses where that is the surer one."""
        self._frozen, assessment, self.verdict_ = judge_fit(
            self._frozen, self._kept_points(), self.stopped_
        )
        if float(assessment.log_normalizer.stderr) < self.log_normalizer_stderr_:
            self.log_normalizer_ = float(assessment.log_normalizer.log_z)
            self.log_normalizer_stderr_ = float(assessment.log_normalizer.stderr)


def load(path: str | Path) -> BalancedEBM:
    """The estimator that `save` wrote into the folder `path`.

    Raises:
        InputError: a file is missing or damaged, or the format version is another.
    """
    config, arrays = read_model(Path(path))
    try:
        estimator = BalancedEBM(**config["parameters"])
        check_arguments(estimator)
    except (KeyError, TypeError, InputError) as error:
        raise InputError(
            f"{path}: the configuration is damaged ({reason(error)}); fit the model anew"
        ) from None
    restore(estimator, config, arrays, str(path))
    return estimator
