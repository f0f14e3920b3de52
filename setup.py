"""Builds the wheel into an empty folder, so that it holds what the tree holds now.

Everything else about the package is in pyproject.toml. setuptools adds to build/lib and removes
nothing from it: a module that is gone from the tree would stay in every wheel built after.
"""

import shutil
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildFromTree(build_py):
    """build_py, after what an earlier build left is removed."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()

    def find_package_modules(self, package: str, package_dir: str) -> list[Any]:
        """The package's modules: this file lies beside them and is none."""
        modules = super().find_package_modules(package, package_dir)
        return [module for module in modules if module[1] != "setup"]


setup(cmdclass={"build_py": BuildFromTree})
