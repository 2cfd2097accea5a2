"""What `config.json` of a fitted estimator must hold, looked at before anything is made of it.

JSON knows no types but its own, and a model may come from anywhere: every entry has the type that
it was written with, and whatever becomes the size of an array is no larger than what is stored.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from tiltflow.data.column_types import read_type
from tiltflow.data.errors import InputError
from tiltflow.evaluation.verdict import read_verdict
from tiltflow.training.preprocess import PREPROCESSINGS
from tiltflow.training.sizes import Sizes

FIGURES = (
    "log_normalizer",
    "log_normalizer_stderr",
    "importance_ess",
    "held_out_log_likelihood",
    "held_out_log_likelihood_stderr",
)


def check_config(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], source: str) -> None:
    """Raise `InputError`, naming the entry, for the first that is missing or cannot be."""
    for name, (may_be, words) in ENTRIES.items():
        if name not in config and name in OPTIONAL:
            continue
        if name not in config:
            raise InputError(f"{source}: '{name}' is missing in its configuration; fit it anew")
        if not may_be(config[name]):
            raise InputError(
                f"{source}: the configuration is damaged: '{name}' is {config[name]!r:.60}, which "
                f"is not {words}; fit the model anew"
            )
    columns = config["columns"]
    for name in ("levels", "types"):
        if not set(config.get(name, {})) <= set(columns):
            raise InputError(
                f"{source}: the configuration is damaged: {name} of no column; fit it anew"
            )
    sizes = stored_sizes(config)
    if not all(_is_count(1)(size) for size in sizes.values()):
        raise InputError(
            f"{source}: the configuration is damaged: the sizes are {sizes!r:.120}, which are not "
            "counts; fit the model anew"
        )
    d, rows = len(columns), arrays.get("rows")
    shapes: dict[str, tuple[int, ...]] = {"quanta": (d,), "origin": (d,), "step_size": ()}
    shapes["rows"] = (len(rows) if rows is not None and rows.ndim else 1, d)
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape != shape or array.dtype.kind != "f" or not array.size:
            found = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise InputError(
                f"{source}: array '{name}' is {found}, where numbers of shape {shape} belong; "
                "fit the model anew"
            )
    _check_sizes(config, sizes, d, arrays, source)


def stored_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of the fit; models written before they followed the rows have arguments alone."""
    found = config.get("sizes", config["parameters"])
    return {name: found.get(name) for name in Sizes._fields}


def _check_sizes(
    config: Mapping[str, Any],
    sizes: Mapping[str, int],
    d: int,
    arrays: Mapping[str, np.ndarray],
    source: str,
) -> None:
    stored = sum(array.size for array in arrays.values())
    width, depth = sizes["energy_width"], sizes["energy_depth"]
    steps = d * d if "whiten" in config["preprocessing"] else d
    asked = {
        "columns": (steps, stored),
        "base_components": ((config["base_components"] or 0) * d * d, stored),
        "proposal_components": (config["proposal_components"] * d * d, stored),
        "energy_width": (width * d + (depth - 1) * width**2, stored),
        "energy_depth": (depth, len(arrays)),
        "earlier_energies": (config["earlier_energies"], len(arrays)),
    }
    for name, (size, most) in asked.items():
        if size > most:
            raise InputError(
                f"{source}: '{name}' asks for more than the arrays hold ({size:.4g} of {most}); "
                "the two files do not belong together"
            )


def _is_number(value: Any) -> bool:
    """One that fits into float64: whole numbers of JSON have no end."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1023)


def _is_at_least_one(value: Any) -> bool:
    return _is_number(value) and 1 <= value < float("inf")


def _is_text(value: Any) -> bool:
    """A string that can be written as UTF-8, which JSON does not promise."""
    return isinstance(value, str) and not any("\ud800" <= each < "\ue000" for each in value)


def _is_count(least: int, most: int = 2**53) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _or_none(may_be: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or may_be(value)


def _is_cell(value: Any) -> bool:
    return value is None or type(value) is bool or _is_number(value) or _is_text(value)


def _are(each_may_be: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(each_may_be, cast(list[Any], value)))


def _maps_to(each_may_be: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict)
        and all(
            _is_text(name) and each_may_be(it) for name, it in cast(dict[Any, Any], value).items()
        )
    )


def _are_names(value: Any) -> bool:
    return _are(_is_text)(value) and 0 < len(value) == len(set(value))


def _is_level_list(value: Any) -> bool:
    level = _are(lambda each: each is not None and _is_cell(each))
    return level(value) and 0 < len(value) == len(set(value))


def _is_type(value: Any) -> bool:
    try:
        categories = read_type(value).categories
    except (KeyError, TypeError, ValueError):
        return False
    return categories is None or _is_level_list(list(categories))


def _is_verdict(value: Any) -> bool:
    try:
        read_verdict(value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return False
    return _are(_is_text)(value["reasons"]) and _maps_to(_is_number)(value["figures"])


NUMBER, FLAG, TEXT = (_is_number, "a number"), (_is_flag, "true or false"), (_is_text, "text")
ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "parameters": (_maps_to(lambda _: True), "a dictionary of arguments"),
    "columns": (_are_names, "a list of different names"),
    "named": FLAG,
    "levels": (_maps_to(_is_level_list), "a dictionary of lists of levels"),
    "types": (_maps_to(_is_type), "a dictionary of types"),
    "base": TEXT,
    "base_components": (_or_none(_is_count(1)), "a count or null"),
    "proposal_components": (_is_count(1), "a count"),
    "mixture_of_flows": FLAG,
    "bounded_proposal": FLAG,
    "preprocessing": (lambda value: value in PREPROCESSINGS, "a known preprocessing"),
    "local_steps": (_is_count(1), "a count"),
    "sizes": (_maps_to(_is_count(1)), "a dictionary of counts"),
    "independent_rows": (_or_none(_is_at_least_one), "a number from one on, or null"),
    "max_steps": (_or_none(_is_count(1)), "a count or null"),
    "best_step": (_is_count(0), "a count"),
    "earlier_energies": (_is_count(0), "a count"),
    "ladder": FLAG,
    "stopped": (_or_none(_is_text), "text or null"),
    "versions": (_maps_to(_is_text), "a dictionary of versions"),
    "verdict": (_is_verdict, "a verdict"),
    "offset": NUMBER,
    "metrics": (_are(_maps_to(_is_cell)), "a list of reports"),
    **dict.fromkeys(FIGURES, NUMBER),
}
OPTIONAL = (
    "named",
    "levels",
    "types",
    "bounded_proposal",
    "sizes",
    "independent_rows",
    "max_steps",
    "versions",
    "offset",
)
"""What models written by earlier versions do not have."""
