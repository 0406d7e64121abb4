"""Which files the wheel holds, because the root of the repository is the package; all else is in pyproject.toml."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

#: Modules in the root that are no part of the package.
NOT_PACKAGED = {"noxfile", "setup"}


class BuildPy(build_py):
    """Leaves out what is needed in a checkout only."""

    def find_package_modules(self, package, package_dir):
        """Triples of package, module and file."""
        found = super().find_package_modules(package, package_dir)
        return [each for each in found if each[:2] not in {("xpnn", name) for name in NOT_PACKAGED}]


setup(
    packages=["xpnn", *(f"xpnn.{name}" for name in find_packages(exclude=["tests*", "examples*"]))],
    cmdclass={"build_py": BuildPy},
)
