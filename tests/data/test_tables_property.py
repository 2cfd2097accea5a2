"""What is written is read again, whatever columns are called and whatever they hold."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltflow.data.checks import is_number
from tiltflow.data.table_kinds import ARRAYS, EXTENSIONS
from tiltflow.data.table_writing import write_table
from tiltflow.data.tables import read_columns
from tiltflow.data.text_columns import MISSING

ODD = [*" \t\n\r,;\"'#/\\=@%{}[]:.-_|<>&()", "é", "ß", "漢", "𝒙", "\u200b", "\u2028", "\ufeff"]
NAMES = st.text([*"abN10", *ODD], min_size=1, max_size=12).filter(
    # A first line of numbers is a row; blanks around a name are not part of it.
    lambda name: name == name.strip() != "" and not is_number(name) and name not in MISSING
)
NUMBERS = st.floats() | st.integers(-(2**53), 2**53).map(float) | st.sampled_from([-0.0, 5e-324])
TEXTS = st.text([*"abZ", *ODD], min_size=1, max_size=8).filter(
    lambda cell: cell == cell.strip() != "" and cell not in MISSING
)


@st.composite
def tables(draw, text):
    rows = draw(st.integers(1, 6))
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    columns = {}
    for name in names:
        if text and draw(st.booleans()):
            cells = draw(st.lists(TEXTS, min_size=rows, max_size=rows))
            columns[name] = np.array(["text", *cells], dtype=object)
        else:
            cells = draw(st.lists(NUMBERS, min_size=rows, max_size=rows))
            columns[name] = np.array([0.5, *cells])
    return columns


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_odd_names_and_values_come_back(extension):
    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(tables(text=extension not in ARRAYS))
    def comes_back(columns):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"table{extension}"
            write_table(path, columns)
            found = read_columns(path)
        names = [f"x{i}" for i in range(len(columns))] if extension == ".npy" else list(columns)
        assert list(found) == names
        for name, column in zip(names, columns.values()):
            assert found[name].dtype == column.dtype
            if column.dtype == object:
                assert found[name].tolist() == column.tolist()
            elif extension == ".ndjson":  # JSON has no infinities, and knows no sign of zero
                finite = np.where(np.isfinite(column), column, np.nan)
                np.testing.assert_array_equal(found[name], finite)
            else:
                np.testing.assert_array_equal(found[name], column)
                signs = [math.copysign(1, cell) for cell in column if not math.isnan(cell)]
                assert signs == [math.copysign(1, c) for c in found[name] if not math.isnan(c)]

    comes_back()
