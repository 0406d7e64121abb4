"""The preflight: the import path of all processes, wheels for packages that this Python lacks, and test imports.

This file is also the program of the preflight's processes: ``preflight.py ROWS module=package ...``.
"""

import contextlib
import hashlib
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# The modules that each group imports, and the package that contains the module.
NEEDED = {
    "xpnn": {
        "numpy": "numpy",
        "array_api_compat": "array-api-compat",
        "safetensors.numpy": "safetensors",
        "filelock": "filelock",
        "threadpoolctl": "threadpoolctl",
        "rich": "rich",
        "xpnn": "",
    },
    "golden runs": {"scipy": "scipy", "joblib": "joblib", "sklearn.datasets": "scikit-learn"},
    "suite": {
        "pytest": "pytest",
        "hypothesis": "hypothesis",
        "mpmath": "mpmath",
        "scipy": "scipy",
        "array_api_strict": "array-api-strict",
    },
    "cupy": {"cupy": "cupy-cuda13x"},
    "torch": {"torch": "torch"},
}
# Packages that other packages import, whose wheels are needed as well.
ALONG = {"rich": "markdown-it-py mdurl pygments", "scikit-learn": "joblib cloudpickle narwhals threadpoolctl"}
REPORTED_VERSIONS = ("numpy", "cupy-cuda13x", "cupy-cuda12x", "torch", "array-api-compat", "numba", "pytest")


def import_path(scratch: Path) -> str:
    """The PYTHONPATH of children: this checkout as `xpnn`, for any name of its folder, then the unpacked wheels."""
    package = scratch / "path"
    package.mkdir()
    (package / "xpnn").symlink_to(ROOT, target_is_directory=True)
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(package), str(scratch / "wheels"), *([given] if given else [])])


def unpack(wheels: Path, target: Path) -> list[str]:
    """Unpack wheels of packages that this Python lacks, as pip does; returns what was left out and why, in words."""
    target.mkdir()
    left_out = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, *_ = wheel.name.split("-")
        if not fits(wheel.name):
            left_out.append(f"{wheel.name} does not fit Python {platform.python_version()} on {platform.machine()}")
        elif installed(name) and not too_old(name):
            left_out.append(f"{name} is already installed, its wheel is not used")
        else:
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.infolist():
                    name_in_target = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", entry.filename)
                    if not entry.is_dir() and ".data/" not in name_in_target and ".." not in Path(name_in_target).parts:
                        file = target / name_in_target
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(archive.read(entry))
    return left_out


def fits(name: str) -> bool:
    """Whether a wheel of that name is for this Python, by its three tags."""
    python, abi, system = name.removesuffix(".whl").split("-")[-3:]
    minor = sys.version_info.minor
    versions = {f"cp3{n}" for n in range(2, minor + 1)} if "abi3" in abi else {f"cp3{minor}"}
    right = versions | {"py3", f"py3{minor}"}
    place = system == "any" or (sys.platform == "linux" and "linux" in system and platform.machine() in system)
    return place and not right.isdisjoint(python.split("."))


def installed(name: str) -> str:
    """The version of an installed package; empty if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def too_old(name: str) -> bool:
    """Whether an installed package is older than `pyproject.toml` requires."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [*project["dependencies"], *project["optional-dependencies"].get("test", [])]
    least = {re.sub(r"[-_.]+", "-", text.partition(">=")[0]): text.partition(">=")[2] for text in required}
    wanted = least.get(re.sub(r"[-_.]+", "-", name), "")
    return numbers(installed(name)) < numbers(wanted)


def numbers(version: str) -> list[int]:
    """The release of a version as numbers."""
    release, *_ = re.split(r"[^\d.]", version, maxsplit=1)
    return [int(number) for number in release.split(".") if number]


def cure(lacking: list[str]) -> str:
    """What to do about packages that do not import, as the end of a sentence."""
    if not lacking:
        return ""
    wanted = " ".join(dict.fromkeys(word for name in lacking for word in (name, *ALONG.get(name, "").split())))
    version = ".".join(platform.python_version_tuple()[:2])
    return (
        "; bring wheels, made on a machine with a network by: pip download --no-deps --only-binary=:all: "
        f"--python-version {version} -d WHEELS {wanted}; then add --wheels WHEELS, or leave out checks that need them "
        "(--backends, --stages, --without)"
    )


def source() -> str:
    """Version, hash of all sources and, in a repository, commit."""
    match = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    text = f"xpnn {match.group(1) if match else '?'}"
    digest = hashlib.sha256()
    for path in sorted(ROOT.rglob("*.py")):
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    text += f", SHA-256 of all *.py {digest.hexdigest()[:16]}"
    if (ROOT / ".git").exists():
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
            text += (
                f", commit {subprocess.run(git, capture_output=True, text=True, timeout=5, check=True).stdout.strip()}"
            )
    return text


def imports(lines: str, wanted: list[str]) -> int:
    """Import each ``module=package`` and append a row for it; the exit status."""
    failed = 0

    def append(row: dict[str, Any]) -> None:
        with Path(lines).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    # The missing module may be one that the package imports; most packages have the name of their module.
    packages = {module.partition(".")[0]: name for group in NEEDED.values() for module, name in group.items()}
    append({"total": len(wanted) + ("numpy=numpy" in wanted)})
    for module, package in (name.split("=") for name in wanted):
        started = time.monotonic()
        row: dict[str, Any] = {"name": f"import {module}", "passed": True}
        try:
            imported = importlib.import_module(module)
            if module == "xpnn" and Path(imported.__file__ or "").resolve() != ROOT / "__init__.py":
                raise RuntimeError(f"another xpnn comes first: {imported.__file__}")
            row["about"] = device(module, imported)
        except BaseException as error:
            # An incomplete package may raise anything.
            text = " ".join(str(error).split())
            row |= {"passed": False, "problem": f"{type(error).__name__}: {text}"}
            if isinstance(error, ImportError):
                missing = (error.name or "").partition(".")[0]
                row["package"] = packages.get(missing) or missing.replace("_", "-") or package
            failed += 1
        append({**row, "seconds": time.monotonic() - started})
        if not row["passed"]:
            print(f"FAILED {row['name']}: {row['problem']}", flush=True)
    if "numpy=numpy" in wanted:
        found = ", ".join(f"{name} {installed(name)}" for name in REPORTED_VERSIONS if installed(name))
        append({"name": "nvidia-smi", "passed": True, "about": {"packages": found, **nvidia_smi()}})
    return 1 if failed else 0


def device(module: str, imported: Any) -> dict[str, str]:
    """The device as CuPy or PyTorch describes it; raises an error if it finds none."""
    if module == "torch":
        return {"torch": f"{imported.__version__}, built for CUDA {imported.version.cuda}"}
    if module == "torch.cuda" and not imported.is_available():
        raise RuntimeError("this PyTorch finds no CUDA device")
    if module != "cupy":
        return {}
    runtime = imported.cuda.runtime
    found = runtime.getDeviceProperties(0)
    text = f"{found['name'].decode()}, compute capability {found['major']}.{found['minor']}, "
    text += f"{found['totalGlobalMem'] / 2**30:.0f} GiB, {runtime.getDeviceCount()} device(s); CUDA: driver "
    return {"gpu": text + f"{release(runtime.driverGetVersion())}, runtime {release(runtime.runtimeGetVersion())}"}


def release(number: int) -> str:
    """A version of CUDA in the usual form."""
    return f"{number // 1000}.{number % 1000 // 10}"


def nvidia_smi() -> dict[str, str]:
    """Name, driver, memory and mode of the GPU, from nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_mode", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=6, check=True).stdout.strip()
        return {"driver": "; ".join(answer.splitlines())}
    except (OSError, subprocess.SubprocessError) as error:
        return {"driver": f"nvidia-smi does not answer ({type(error).__name__})"}


if __name__ == "__main__":
    sys.exit(imports(sys.argv[1], sys.argv[2:]))
