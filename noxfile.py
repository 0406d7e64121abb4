"""The tasks of this project, for people and for CI alike: ``nox -l`` lists them, ``nox -s quick`` runs one.

Each session has a virtual environment of its own under ``.nox``, which is reused; ``nox -R -s quick`` installs nothing.
``.ci/run`` runs those that every commit must pass.
"""

import json
import os
import re
import shutil
import tempfile
import time
import zipfile
from pathlib import Path

import nox

nox.options.sessions = ["quick", "lint"]
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
nox.needs_version = ">=2024.4.15"

ROOT = Path(__file__).parent
IN_PARALLEL = ("-n", "auto", "--maxprocesses", "8")

# What `quick` runs, on NumPy: the rules for the package as a whole, and all layers. pytest fails for a path that does
# not exist, and the session says when it takes longer than a minute.
QUICK = ("tests/test_package.py", "tests/common", "tests/layers", "tests/interop", "tests/training/test_optimizers.py")
OTHER_BACKENDS = "strict or torch or cupy or cuda or readonly"
SECONDS = 60

# What work leaves in a checkout, beside the caches.
LEFT_BY_WORK = (".git", ".nox", ".venv", "__pycache__", "*.egg-info", "build", "dist", "runs", "site", "lessons")


@nox.session
def quick(session: nox.Session) -> None:
    """Run the fast tests on NumPy, in less than a minute."""
    session.install("-q", "-e", ".[test]")
    start = time.monotonic()
    session.run("pytest", *QUICK, "-k", f"not ({OTHER_BACKENDS})", "-q", *IN_PARALLEL, *session.posargs)
    if (seconds := time.monotonic() - start) > SECONDS:
        session.warn(f"the quick tests took {seconds:.0f} s, more than {SECONDS}: nox -s quick -- --durations=20")


@nox.session
def test(session: nox.Session) -> None:
    """Run all tests, on every backend that works without PyTorch and CuPy."""
    session.install("-q", "-e", ".[test]")
    session.run("pytest", "tests", *IN_PARALLEL, *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """Run all tests with PyTorch, which must work, and with the compiled kernels of Numba."""
    session.install("-q", "torch==2.13.0", "-e", ".[test,numba]")
    environment = {**os.environ, "XPNN_REQUIRE_BACKENDS": "torch", "XPNN_NUMBA": "1"}
    session.run("pytest", "tests", *IN_PARALLEL, *session.posargs, env=environment)


# The emulator is installed by pip within the environment, which uv leaves out.
@nox.session(venv_backend="virtualenv")
def cupy(session: nox.Session) -> None:
    """Run tests, parity and a training run on CuPy: on a GPU, or without one on an emulated device.

    ``nox -s cupy -- emulated`` emulates a device where there is a GPU too.
    """
    session.install("-q", "-e", ".[test]")
    environment = dict(os.environ)
    if shutil.which("nvidia-smi") and "emulated" not in session.posargs:
        session.install("-q", "-e", ".[cupy]")
    else:
        session.run_install("python", "tests/cuda_emulator/install.py")
        # NCCL's names and values, which need no GPU, are held against those of its double.
        session.install("-q", "-e", ".[nccl]")
        # NVIDIA's compiler is installed outside of the environment, where CuPy would find it.
        nvrtc = Path(session.create_tmp()).resolve() / "nvrtc"
        session.install("-q", "--target", str(nvrtc), "--upgrade", "nvidia-cuda-nvrtc>=13,<14")
        environment["XPNN_NVRTC"] = str(nvrtc)
    session.run(".ci/cupy", session.bin, external=True, env=environment)


# Its commands make an environment of their own, by the python3 of the machine.
@nox.session(venv_backend="none")
def readme(session: nox.Session) -> None:
    """Run the README's two commands as they stand there, in a copy of the checkout in which nothing is installed."""
    checkout = Path(session.create_tmp()).resolve() / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*_cache", *LEFT_BY_WORK))
    train, tests = (_command_under(heading) for heading in ("Train", "Test"))
    with session.chdir(checkout):
        session.run("bash", "-c", train, external=True)
        (metrics,) = Path("runs").glob("*/metrics.json")
        found = json.loads(metrics.read_text())
        session.log(f"{metrics}: {found}")
        if found["test_accuracy"] < 0.985:
            session.error("the README promises an accuracy of 98.5%")
        shutil.rmtree(".venv")
        session.run("bash", "-c", tests, external=True)


def _command_under(heading: str) -> str:
    """The first indented line below the line of the README that begins with that word."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(rf"^{heading}.*?^    (.+?)$", text, re.M | re.S)
    if command is None:
        raise ValueError(f"README.md lacks its command below the line that begins with {heading}")
    return command.group(1)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site in site/ without warnings and check it; run the examples of pages, docstrings and examples/."""
    session.install("-q", "-e", ".[test,docs]")
    # Pages that are no more would stay, and lessons whose program has not changed would not run.
    for folder in ("site", "docs/lessons", "docs/reference"):
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    session.run("sphinx-build", "-q", "-W", "-b", "html", "docs", "site")
    session.run("python", "docs/extensions/check_site.py", "site")
    tests = ("tests/test_readme.py", "tests/test_documented.py", "tests/docs")
    session.run("pytest", "-q", *tests, *session.posargs)
    for program in sorted((ROOT / "examples").glob("*.py")):
        session.run("python", str(program))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format; nox -s lint -- --fix mends what can be mended."""
    session.install("-q", _required("ruff"))
    session.run("ruff", "check", ".", *session.posargs)
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package in this checkout."""
    session.install("-q", _required("mypy"), "-e", ".")
    # mypy finds a package by the name of its folder, and a checkout may have any name.
    cache = ROOT / ".mypy_cache"
    with tempfile.TemporaryDirectory() as parent, session.chdir(parent):
        Path("xpnn").symlink_to(ROOT, target_is_directory=True)
        options = ("--config-file", "xpnn/pyproject.toml", "--cache-dir", str(cache))
        session.run("mypy", *options, "-p", "xpnn", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel and try it in an environment without the checkout: what it holds, the command, the types."""
    dist = Path(session.create_tmp()).resolve() / "dist"
    # setuptools puts what an earlier build left into the wheel.
    for folder in (dist, ROOT / "build"):
        shutil.rmtree(folder, ignore_errors=True)
    session.install("-q", "build", _required("mypy"))
    session.run("python", "-m", "build", "-q", "--wheel", "--outdir", str(dist), ".")
    (path,) = dist.glob("*.whl")
    names = zipfile.ZipFile(path).namelist()
    others = re.compile("(?!xpnn)|.*test_|xpnn/(docs|examples|noxfile|scripts|setup|tests)")
    stray = [name for name in names if others.match(name)]
    if stray or "xpnn/py.typed" not in names:
        session.error(f"the wheel holds {stray or 'no xpnn/py.typed'}")
    session.log(f"{len(names)} files in the wheel, no tests")
    session.install("-q", "--force-reinstall", str(path))
    with session.chdir(dist):
        session.run("xpnn", "--version")
        session.run("xpnn", "info")
        session.run("mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "xpnn")


@nox.session
def bench(session: nox.Session) -> None:
    """Time layers and nets beside PyTorch: nox -s bench -- --json FILE; small nets unless told otherwise."""
    session.install("-q", "torch==2.13.0", "-e", ".[test,numba]")
    session.run("xpnn", "bench", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """Run what takes too long for every commit: geometry from a new seed, which is printed, and parity in all modes."""
    session.install("-q", "-e", ".[test,numba]")
    session.run("pytest", "tests", "-m", "fuzz", *IN_PARALLEL)
    session.log(session.run("xpnn", "parity", "--modes", silent=True).splitlines()[-1])


@nox.session
def release(session: nox.Session) -> None:
    """Build sdist and wheel of the last commit into dist/, after checking version and changelog; uploads nothing."""
    if session.run("git", "status", "--porcelain", external=True, silent=True, log=False):
        session.error("commit or remove what `git status` shows first")
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M).group(1)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.M):
        session.error(f"CHANGELOG.md has no heading '## {version} (YYYY-MM-DD)'")
    session.install("-q", "build", "twine")
    for folder in (ROOT / "dist", ROOT / "build"):
        shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "-q")
    session.run("twine", "check", "--strict", *map(str, sorted((ROOT / "dist").iterdir())))
    session.log(f"dist/ holds {version}; next: git tag v{version}, twine upload dist/*")


def _required(name: str) -> str:
    """What the extra `dev` requires of a package."""
    requirements = nox.project.load_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]["dev"]
    return next(each for each in requirements if re.match(r"[\w-]+", each).group() == name)
