"""What pyproject.toml cannot say: the wheel carries the configuration inside of the package of the experiments.

In a checkout it is the folder conf/, beside the packages; installed, a top-level ``conf`` could be anyone's.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfiguration(build_py):
    """Copies conf/ to experiments/conf/ in the build; an editable installation reads the checkout's."""

    def run(self) -> None:
        """Builds as usual, then adds the configuration."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "experiments")
        for file in sorted(Path("conf").rglob("*.yaml")):
            copy = target / file
            self.mkpath(str(copy.parent))
            self.copy_file(str(file), str(copy))


setup(cmdclass={"build_py": BuildWithConfiguration})
