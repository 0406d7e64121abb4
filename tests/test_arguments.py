"""Every public constructor and function takes NumPy's numbers as Python's, and refuses what is no number by name."""

import re
from collections.abc import Iterator

import numpy as np
import pytest
from arguments import OTHERS, TABLE, arguments, public

import xpnn as nn

ARGUMENTS = dict(arguments())
#: What messages call an argument that has no name in a call.
NAMES = {"dy": "(dy|upstream gradient)", "early_stopping": "patience"}


def told(result):
    """All there is to a result, types included, so that two can be compared."""
    if isinstance(result, np.ndarray | np.generic):
        return result.dtype.str, result.shape, result.tobytes()
    if isinstance(result, tuple | list):
        return type(result), [told(each) for each in result]
    if isinstance(result, dict):
        return {name: told(each) for name, each in result.items()}
    if isinstance(result, nn.DataLoader | Iterator):
        return told([list(batch) for batch in result])
    attributes = getattr(result, "__dict__", {})
    numpys = {name: value for name, value in attributes.items() if isinstance(value, np.generic)}
    assert not numpys, f"{result!r} keeps {numpys}"
    return type(result), repr(result)


@pytest.mark.parametrize("argument", [pytest.param(each, id=name) for name, each in ARGUMENTS.items()])
def test_numbers_of_numpy_do_what_those_of_python_do(argument):
    for given, plain in argument.accepted():
        try:
            expected = told(argument.call(plain))
        except ValueError as error:
            # What is too small for float16 became 0.
            assert np.asarray(given).dtype == np.float16, f"{plain!r}: {error}"
            with pytest.raises(ValueError, match=f"^{re.escape(argument.name)}"):
                argument.call(given)
            continue
        assert told(argument.call(given)) == expected, f"{given!r}"


@pytest.mark.parametrize("argument", [pytest.param(each, id=name) for name, each in ARGUMENTS.items()])
def test_what_is_no_such_number_is_refused_by_name(argument):
    name = NAMES.get(argument.name, re.escape(argument.name))
    for value in argument.refused():
        with pytest.raises((ValueError, TypeError)) as caught:
            argument.call(value)
        assert re.search(rf"\b{name}\b", str(caught.value)), f"{value!r}: {caught.value}"


def test_nothing_public_is_missing_from_the_table():
    missing = public() - OTHERS - TABLE.keys()
    assert not missing, f"say in tests/helpers/arguments.py how to call {', '.join(sorted(missing))}"
    gone = OTHERS - public()
    assert not gone, f"not public any more: {gone}"
