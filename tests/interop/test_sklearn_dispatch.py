"""Arrays of other libraries stay on their device where scikit-learn dispatches.

SciPy reads ``SCIPY_ARRAY_API`` when it is imported, so these tests run in a process of their own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", "1.6")

PROGRAM = Path(__file__).parents[1] / "helpers" / "sklearn_dispatch.py"


@pytest.fixture(scope="module", params=["strict", "torch", "cupy"])
def found(request):
    import xpnn as nn

    try:
        nn.get_backend(request.param)
    except nn.BackendUnavailable as error:
        pytest.skip(str(error))
    variables = {**os.environ, "SCIPY_ARRAY_API": "1"}
    run = subprocess.run(
        [sys.executable, str(PROGRAM), request.param], capture_output=True, text=True, env=variables, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_results_are_arrays_of_the_library_of_x(found):
    assert found["kinds"] == [True] * len(found["kinds"]) and found["kinds"]


def test_predictions_are_those_of_numpy(found):
    assert found["labels equal"]
    assert found["largest difference"] < 1e-9


def test_x_is_not_copied_to_the_host(found):
    """Bytes that fit and predict read from the device, and wrote to it, other than labels and orders of samples."""
    assert found["bytes to host"] < found["bytes of x"] / 4
    assert found["bytes to device"] < found["bytes of x"]


def test_text_labels_are_numpy_arrays(found):
    assert found["text"] == ["no", "yes"]


def test_another_library_than_that_of_fit_is_refused(found):
    assert "must use the same namespace and the same device" in found["refused"]
