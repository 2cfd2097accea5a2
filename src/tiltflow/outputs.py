"""`set_output`: in what an estimator gives rows, said as to transformers of scikit-learn."""

from typing import Any, TypeVar, cast

import sklearn  # pyright: ignore[reportMissingTypeStubs]

from tiltflow.data.column_types import Container, check_container

Outputs = TypeVar("Outputs", bound="SetOutputMixin")


class SetOutputMixin:
    """Rows in arrays, or in data frames where the user has said so."""

    # Where scikit-learn's `clone` looks for it.
    _sklearn_output_config: dict[str, Any]

    def set_output(self: Outputs, *, transform: str | None = None) -> Outputs:
        """Say in what `sample` and `impute` give rows: an array, or a data frame.

        In a frame the columns have the names and the types that they had in the table of the fit:
        booleans, whole numbers, categories, text. A saved model has the types, not this choice.

        Args:
            transform: "default" for an array, "pandas" or "polars"; None leaves it as it is. Until
                it is said, scikit-learn's `set_config(transform_output=...)` counts.

        Raises:
            InputError: another word, or pandas is not installed.
        """
        if transform is not None:
            check_container(transform)
            self._sklearn_output_config = {"transform": transform}
        return self

    def _output(self) -> dict[str, Any]:
        """What was said, as an attribute."""
        name = "_sklearn_output_config"
        return {name: getattr(self, name)} if hasattr(self, name) else {}

    def _container(self) -> Container:
        said: Any = self._output().get("_sklearn_output_config", {}).get("transform")
        config = cast(dict[str, Any], sklearn.get_config())
        return config["transform_output"] if said is None else said


def index_of(X: Any) -> Any:
    """The labels of the rows of a pandas frame; None of other things."""
    return X.index if hasattr(X, "iloc") else None
