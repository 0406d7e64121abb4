"""Keeps modules of the checkout out of the wheel, because the root of the repository is the package.

All else is in pyproject.toml.
"""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildPy(build_py):
    """Leaves out noxfile.py and this file."""

    def find_package_modules(self, package, package_dir):
        """Triples of package, module and file."""
        found = super().find_package_modules(package, package_dir)
        return [each for each in found if each[:2] not in (("xpnn", "noxfile"), ("xpnn", "setup"))]


setup(cmdclass={"build_py": BuildPy})
