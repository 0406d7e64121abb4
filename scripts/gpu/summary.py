"""A check in at most 60 lines: the machine, each stage with its counts, figures, and failures as far as they fit."""

import math
from typing import Any

from .parts import DISTURBED, FAILED, INTERRUPTED, LIMIT, NOT_RUN, PASSED, RUNNING, SKIPPED, TOGETHER, Part

SUMMARY_LINES = 60
LINE_WIDTH = 180
# Bytes of each log that are kept, half from each end; the logs of thirty parts then have less than 10 MiB.
LOG_BYTES = 200_000


def summarise(about: dict[str, str], parts: list[Part], ended: str = "") -> list[str]:
    """The machine, a line for each stage, figures, and failures as far as they fit."""
    lines = [f"{key:<9} {value}" for key, value in about.items()]
    lines += ["", f"{'stage, part':<32} {'':<11} {'seconds':>7}  rows"]
    for stage in dict.fromkeys(part.stage for part in parts):
        lines += stage_lines([part for part in parts if part.stage == stage])
    measured = [f"{part.name}: {line}" for part in parts for line in figures(part)]
    lines += ["", *measured] if measured else []
    details = [[f"{part.name}: {line}" for line in problems(part)] for part in parts]
    details = [of_part for of_part in details if of_part]
    last = [ended] if ended else []
    available = SUMMARY_LINES - len(lines) - len(last) - 1
    lines += [""] if details and available > 0 else []
    while details and available > 0:
        for of_part in details:
            if of_part and available > 0:
                lines.append(of_part.pop(0))
                available -= 1
        details = [of_part for of_part in details if of_part]
    lines = lines[: SUMMARY_LINES - len(last)]
    # The last line may have a command to copy, so it is not cut.
    return [*(shortened_line(line) for line in lines), *last]


def shortened_line(line: str) -> str:
    """A line, cut to the width of the summary."""
    return line if len(line) <= LINE_WIDTH else line[: LINE_WIDTH - 3].rstrip() + "..."


def stage_lines(parts: list[Part]) -> list[str]:
    """The status of a stage with its counts, and below it the parts that did not pass."""
    whole = Part(parts[0].stage, parts[0].stage, [])
    worst_first = (FAILED, INTERRUPTED, LIMIT, NOT_RUN, DISTURBED, SKIPPED)
    whole.status = next((s for s in worst_first if any(p.status == s for p in parts)), PASSED)
    if any(part.status == RUNNING for part in parts):
        whole.status = RUNNING
    for name in ("total", "passed", "failed", "skipped", "disturbed"):
        setattr(whole, name, sum(getattr(part, name) for part in parts))
    together = whole.stage in TOGETHER
    seconds = [part.seconds for part in parts]
    whole.seconds = max(seconds) if together else sum(seconds)
    lines = [f"{whole.name:<32} {whole.status:<11} {whole.seconds:7.1f}  {whole.counts()}".rstrip()]
    several = len(parts) > 1
    for part in parts:
        if several and part.status != PASSED:
            lines.append(f"  {part.name:<30} {part.status:<11} {part.seconds:7.1f}  {part.counts()}".rstrip())
    return lines


def figures(part: Part) -> list[str]:
    """The results of a part that are worth a line each."""
    measured = [row for row in part.rows if isinstance(row.get("ours_ms"), int | float)]
    if part.stage == "layers":
        return overall(measured)
    if part.stage in ("smoke", "parity") and any("arrays" in row for row in part.rows):
        return errors(part.rows)
    lines = [f"{row['name']}: {row['told']}" for row in part.rows if row.get("told")]
    return lines + [timing(row) for row in measured]


def timing(row: dict[str, Any]) -> str:
    """One row of a benchmark; a disturbed one has no ratio."""
    if row.get("disturbed"):
        return f"{named(row)}: DISTURBED by other processes, not measured (~{row['ours_ms']:.3g} ms)"
    times = [f"{row['ours_ms']:.3g} ms"]
    if isinstance(row.get("torch_ms"), int | float):
        times.append(f"PyTorch {row['torch_ms']:.3g} ms, ratio {row['ratio']:.2f}")
    if "gain" in row:
        times.append(f"plain {row['plain_ms']:.3g} ms, gain {row['gain']:.2f}")
    if isinstance(row.get("relative_error"), int | float):
        times.append(f"error {row['relative_error']:.1e}")
    return f"{named(row)}: {', '.join(times)}"


def named(row: dict[str, Any]) -> str:
    """A row's name with its phase and batch, if it has them."""
    batch = f"batch {row['batch']}" if "batch" in row else ""
    return " ".join(part for part in (row["name"], row.get("phase", ""), batch) if part)


def overall(measured: list[dict[str, Any]]) -> list[str]:
    """The mean ratio of many rows, and the rows with the lowest ratios."""
    disturbed = sum(bool(row.get("disturbed")) for row in measured)
    rough = [f"{disturbed} of {len(measured)} rows DISTURBED by other processes, not measured"] if disturbed else []
    measured = [row for row in measured if not row.get("disturbed")]
    ratios = sorted((row for row in measured if row.get("ratio")), key=lambda row: float(row["ratio"]))
    if not ratios:
        return rough + [timing(row) for row in sorted(measured, key=lambda row: -float(row["ours_ms"]))[:4]]
    mean = math.exp(sum(math.log(row["ratio"]) for row in ratios) / len(ratios))
    faster = sum(row["ratio"] > 1.0 for row in ratios)
    lines = [f"{len(ratios)} rows beside PyTorch, faster in {faster}, geometric mean of ratios {mean:.2f}; slowest:"]
    return rough + lines + [timing(row) for row in ratios[:6]]


def errors(cases: list[dict[str, Any]]) -> list[str]:
    """The largest errors of parity cases against float64, and the number of cases with the reference's bits."""
    same = sum(bool(row.get("same_bits")) for row in cases)
    parts = [f"same bits in {same} of {len(cases)}"]
    for kind in ("forward", "gradient"):
        found = [
            (array["truth"]["ulps"], row["name"], array["name"])
            for row in cases
            for array in row.get("arrays", [])
            if array["name"].startswith("d") is (kind == "gradient") and isinstance(array["truth"]["ulps"], int | float)
        ]
        if found:
            ulps, case, array = max(found)
            parts.append(f"worst {kind} {ulps:.3g} ULP ({case} {array})")
    return ["; ".join(parts)]


def problems(part: Part) -> list[str]:
    """A line for each failure."""
    found = [f"{named(row)}: {problem_of(row)}" for row in part.rows if row.get("passed") is False or row.get("wrong")]
    return ([part.problem] if part.problem else []) + found


def problem_of(row: dict[str, Any]) -> str:
    """Why a row failed."""
    if row.get("wrong"):
        return f"other results than PyTorch's, error {row.get('relative_error')}"
    return str(row.get("problem") or "no reason given")


def last_line(text: str) -> str:
    """The last line of output."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("== ")]
    return lines[-1] if lines else "printed nothing"


def shortened(text: str) -> str:
    """A log, cut in the middle if it is long."""
    if len(text) <= LOG_BYTES:
        return text
    half = LOG_BYTES // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
