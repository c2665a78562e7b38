"""Puts configs/ into the package when a wheel is built; pyproject.toml says all the rest."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies configs/ to dvae/configs; the interface is that of setuptools' `SubCommand`."""

    def _configs(self) -> dict[str, str]:
        """Where each file goes → where it is."""
        folder = Path(self.build_lib, "dvae")
        return {str(folder / path): str(path) for path in sorted(Path("configs").rglob("*.yaml"))}

    def run(self) -> None:
        """Builds from nothing, so that no file of an earlier build stays, then copies."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        for target, source in self._configs().items() if not self.editable_mode else ():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_output_mapping(self) -> dict[str, str]:
        """Also names the configurations, for strict editable installs."""
        return super().get_output_mapping() | self._configs()

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Also names the configurations."""
        return list({**dict.fromkeys(super().get_outputs(include_bytecode)), **self._configs()})

    def get_source_files(self) -> list[str]:
        """Also names the configurations, for a source distribution."""
        return [*super().get_source_files(), *self._configs().values()]


setup(cmdclass={"build_py": BuildWithConfigs})
