"""The parity run: each case on a backend, compared with float64 and with a reference backend.

A case passes if the error of every array is within its bound, compared with the same computation in float64 on NumPy,
and within twice the bound compared with the reference backend, whose result has an error too. In exact numerics it must
also have the same bits as on the reference backend.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from math import inf

import numpy as np

from ..backends import Backend, BackendLike, get_backend
from .cases import Case, part_of
from .compare import Comparison, Host, compare, same_bits
from .outcomes import Measured, Outcome
from .tolerances import EXACT, bound

Results = dict[str, Host]
TRUTH = get_backend("numpy", "float64", "fast")


def run_host(case: Case, backend: BackendLike, dtype: str | None = None) -> Results:
    """Run a case and copy its arrays to the host."""
    b = case.place(backend, dtype)
    # Some cases have NaN and infinity on purpose.
    with np.errstate(all="ignore"):
        found = case.run(b, b.dtype_name)
        b.synchronize()
        return {name: b.to_numpy(array) for name, array in found.items()}


class Parity:
    """Runs of cases on a backend, compared with a reference backend.

    Results of the reference backend and in float64 are cached, so a second run of a case costs one computation.

    Parameters
    ----------
    backend, reference : str or Backend
        The backend under test, and the one that it is compared with.
    truths : mapping, optional
        Results in float64 by case name, if they are known already.
    """

    def __init__(
        self, backend: BackendLike, reference: BackendLike = "numpy", truths: Mapping[str, Results] | None = None
    ) -> None:
        self.backend: Backend = get_backend(backend)
        self.reference: Backend = get_backend(reference)
        self._truths = dict(truths or {})
        self._references: dict[str, Results] = {}

    @property
    def exact(self) -> bool:
        """Whether both backends must have the same bits."""
        return "fast" not in (self.backend.numerics, self.reference.numerics)

    def run(self, case: Case) -> Outcome:
        """Run a case and judge it; an exception becomes a problem of the outcome."""
        try:
            started = time.perf_counter()
            found = run_host(case, self.backend)
            seconds = time.perf_counter() - started
            return self.judge(case, found, seconds)
        except Exception as error:
            return Outcome(case, problem=error_line(error))

    def run_all(
        self,
        cases: Sequence[Case],
        done: Callable[[Outcome], None] = lambda outcome: None,
        run: Callable[[Case], Outcome] | None = None,
    ) -> list[Outcome]:
        """Run cases in order, by `run` unless another function is given, and call ``done`` with each outcome."""
        outcomes = []
        for case in cases:
            outcomes.append((run or self.run)(case))
            done(outcomes[-1])
        return outcomes

    def truth(self, case: Case) -> Results:
        """The case in float64 on NumPy."""
        if case.name not in self._truths:
            self._truths[case.name] = run_host(case, TRUTH, "float64")
        return self._truths[case.name]

    def judge(self, case: Case, found: Results, seconds: float = 0.0) -> Outcome:
        """Compare the results of a case with those in float64 and those of the reference backend."""
        truth = self.truth(case)
        if self.exact:
            truth = {name: nan_of_exact(name, array, found.get(name)) for name, array in truth.items()}
        if case.name not in self._references:
            self._references[case.name] = run_host(case, self.reference)
        reference = self._references[case.name]
        problems = []
        if found.keys() != truth.keys() or found.keys() != reference.keys():
            problems.append(f"returns {', '.join(found)}; expected {', '.join(truth)}")
        arrays = []
        for name in (name for name in found if name in truth and name in reference):
            a, t, r = found[name], truth[name], reference[name]
            if a.dtype != r.dtype or a.shape != t.shape or a.shape != r.shape:
                problems.append(f"{name} is {a.dtype.name} {a.shape}, expected {r.dtype.name} {t.shape}")
                continue
            measured = self._measure(case, name, a, t, r, scale_of(name, truth))
            arrays.append(measured)
            for against, comparison in (("float64", measured.truth), (self.reference.spec, measured.reference)):
                if not comparison.matches:
                    problems.append(describe_error(name, against, comparison))
            if self.exact and not measured.same_bits:
                problems.append(f"{name} has other bits than on {self.reference.spec}")
        return Outcome(case, arrays, seconds, "; ".join(problems))

    def _measure(self, case: Case, name: str, a: Host, truth: Host, reference: Host, floor: float) -> Measured:
        if a.dtype.kind != "f":
            kind = np.float64
            return Measured(
                name,
                compare(a.astype(kind), truth.astype(kind), EXACT),
                compare(a.astype(kind), reference.astype(kind), EXACT),
                same_bits(a, reference),
            )
        part = part_of(name)
        limit, terms = bound(case.op, part), case.terms.get(part, 1)
        # For a case in float64 the truth has an error of the same size.
        doubled = 2.0 if a.dtype == np.float64 else 1.0
        return Measured(
            name,
            compare(a, truth, limit, terms, factor=doubled, floor=floor),
            compare(a, reference, limit, terms, factor=2.0, floor=floor),
            same_bits(a, reference),
        )


def nan_of_exact(name: str, truth: Host, found: Host | None) -> Host:
    """The truth with NaN where exact numerics has NaN and float64 has more information.

    In exact numerics a sum with an infinity is NaN, and NaN in one cell of a weight's gradient is in all of its
    channel.
    """
    if found is None or found.shape != truth.shape or truth.dtype.kind != "f" or np.isfinite(truth).all():
        return truth
    coarse = np.isnan(found) if part_of(name) == "parameter" else np.isnan(found) & np.isinf(truth)
    return np.where(coarse, np.nan, truth)


def scale_of(name: str, truth: Results) -> float:
    """The largest gradient of the same layer, to which errors of an array are relative.

    The gradient of a bias before a batch norm is a sum in which all terms cancel, with errors of the size of the
    layer's other gradients.
    """
    layer, dot, _ = name.rpartition(".")
    if not dot or not name.startswith("d"):
        return 0.0
    others = (array for other, array in truth.items() if other.rpartition(".")[0] == layer)
    return max(float(np.abs(array).max(initial=0.0, where=np.isfinite(array))) for array in others)


def describe_error(name: str, against: str, found: Comparison) -> str:
    """Where and by how much an array exceeds its bound."""
    if found.ulps == inf:
        size = "NaN or infinity differs"
    else:
        size = f"{found.ulps:.3g} ULP, {found.share:.3g} times what is allowed"
    where = f" at {found.index}" if found.index else ""
    return f"{name} against {against}:{where} got {found.got}, expected {found.wanted} ({size})"


def error_line(error: Exception) -> str:
    """An exception on one line, with the file and line that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({where.filename.rpartition('/')[2]}:{where.lineno})"
