"""The parts of all stages: which commands, in how many processes."""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__ != "gpu":
    from ...common.cores import available_cores
else:
    # `gpu_check` run as a file, which adds the folder of these modules to the path.
    from common.cores import available_cores

from .parts import Part
from .preflight import NEEDED

SMOKE_CASES = 60


def plan(options: argparse.Namespace) -> list[Part]:
    """All parts, stage by stage; the preflight is always included."""
    makers = {"smoke": smoke, "nccl": nccl, "parity": parity, "nets": nets, "layers": layers, "suite": suite}
    parts = preflight(options)
    for stage, make in makers.items():
        if stage in options.stages:
            parts += make(options)
    return parts


def preflight(options: argparse.Namespace) -> list[Part]:
    """Imports, in a few processes at the same time, because some take seconds."""
    groups = ["xpnn"]
    groups += ["golden runs"] if "smoke" in options.stages else []
    groups += ["suite"] if "suite" in options.stages else []
    groups += [name for name in ("cupy", "torch") if any(spec.partition(":")[0] == name for spec in options.backends)]
    parts = []
    for group in groups:
        wanted = {name: of for name, of in NEEDED[group].items() if name.partition(".")[0] not in options.without}
        if any(spec.startswith("torch:cuda") for spec in options.backends) and group == "torch":
            wanted["torch.cuda"] = "torch"
        command = [sys.executable, "-P", str(Path(__file__).with_name("preflight.py").resolve()), "LINES"]
        command += [f"{module}={package}" for module, package in wanted.items()]
        parts.append(Part(f"imports for {group}", "preflight", [command]))
    return parts


def smoke(options: argparse.Namespace) -> list[Part]:
    """A few parity cases, the golden runs and the checks of the device."""
    parts = parity_parts(options, "smoke", SMOKE_CASES)
    for backend in options.backends:
        if "sklearn" not in options.without:
            halves = ["1/1"] if options.alone else ["1/2", "2/2"]
            commands = [checks("golden", backend, "--numerics", "exact", "--part", half) for half in halves]
            parts.append(Part(f"golden {backend}", "smoke", commands))
        parts.append(Part(f"device {backend}", "smoke", [checks("device", backend)]))
    return parts


def nccl(options: argparse.Namespace) -> list[Part]:
    """NCCL with one rank, on the first CuPy backend; another one has no NCCL, and says so."""
    backend = next((name for name in options.backends if name.startswith("cupy")), options.backends[0])
    return [Part("nccl", "nccl", [checks("nccl", backend)])]


def parity(options: argparse.Namespace) -> list[Part]:
    """The whole catalogue."""
    return parity_parts(options, "parity", 0)


def parity_parts(options: argparse.Namespace, stage: str, count: int) -> list[Part]:
    """A part for each backend and numerics; with more processes if there are cores, because kernels are compiled."""
    wanted = [(backend, numerics) for numerics in ("fast", "exact") for backend in options.backends]
    processes = 1 if options.alone else max(1, min(4, available_cores() // len(wanted)))
    parts = []
    for backend, numerics in wanted:
        arguments = ["--numerics", numerics, "--filter", options.filter]
        arguments += ["--count", str(count)] if count else []
        commands = [checks("parity", backend, *arguments, "--part", f"{i + 1}/{processes}") for i in range(processes)]
        # Many processes share the cores.
        one_thread = dict.fromkeys(
            ("XPNN_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
        )
        parts.append(Part(f"{stage} {backend} {numerics}", stage, commands, one_thread))
    return parts


def nets(options: argparse.Namespace) -> list[Part]:
    """For each net compiled and plain steps, then steps and inference, beside PyTorch."""
    parts = []
    for backend in options.timed:
        for net, batch in options.nets:
            of_net = ["--batch", str(batch), "--rounds", str(options.rounds), "--backend", backend, "--lines", "LINES"]
            compiled = [sys.executable, "-m", "xpnn", "bench", "compiled-step", "--net", net, *of_net]
            plain = [sys.executable, "-m", "xpnn", "bench", "--nets", "--only", net, "--no-memory", "--wait", "0"]
            parts.append(Part(f"compiled {net} {backend}", "nets", [compiled]))
            parts.append(Part(f"bench {net} {backend}", "nets", [plain + of_net]))
    return parts


def layers(options: argparse.Namespace) -> list[Part]:
    """Single layers beside PyTorch's."""
    parts = []
    for backend in options.timed:
        command = [sys.executable, "-m", "xpnn", "bench", "--layers", "--backend", backend, "--wait", "0"]
        command += ["--rounds", str(options.rounds), "--lines", "LINES"]
        command += ["--only", options.layer] if options.layer else []
        parts.append(Part(f"layers {backend}", "layers", [command]))
    return parts


def suite(options: argparse.Namespace) -> list[Part]:
    """The tests that use the GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "xpnn.scripts.gpu.pytest_plugin"]
    variants = list(dict.fromkeys(map(variant, options.backends)))
    # Tests of what happens without CuPy are not for this machine.
    usual = f"({' or '.join(variants)}) and not unavailable"
    select = usual if options.select is None else options.select
    command += ["-k", select] if select else []
    workers = 1 if options.alone else min(8, available_cores())
    xdist = importlib.util.find_spec("xdist") or (options.wheels and list(options.wheels.glob("pytest_xdist-*.whl")))
    command += ["-n", str(workers)] if workers > 1 and xdist else []
    return [Part("suite", "suite", [[*command, *options.tests]], {"XPNN_REQUIRE_BACKENDS": ",".join(variants)})]


def variant(backend: str) -> str:
    """The name of a backend in the tests' parameters."""
    return "torch-cuda" if backend.startswith("torch:cuda") else backend.partition(":")[0]


def checks(kind: str, backend: str, *arguments: str) -> list[str]:
    """A command that runs checks and appends their rows."""
    return [sys.executable, "-m", "xpnn.scripts.gpu.run_checks", kind, backend, *arguments, "--lines", "LINES"]
