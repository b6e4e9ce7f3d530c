"""The first cell of every notebook: in a clone, and on Colab. Needs nothing, so that any Python can try it."""

# What the course's packages are is told by the name of their distribution: PyPI's `flowlib` is somebody else's.
SETUP = """\
# The packages of this course, flowlib and flowcourse
from importlib.metadata import PackageNotFoundError, version

try:
    version("flow-models-course")
except PackageNotFoundError:
    raise ModuleNotFoundError(
        "flowlib and flowcourse, the packages of this course, are missing. In a "
        "clone of its repository run `pip install -e '.[course]'`, or open the "
        "notebook with the published page's button, which installs them. (The "
        "flowlib of PyPI is another package.)"
    ) from None
"""
# For Colab. `%pip` installs into the kernel's own environment, where flowlib's loose bounds leave torch and numpy be,
# and does not raise when it fails: the question is asked again.
INSTALLING = """\
# Colab: install flowlib and flowcourse (does nothing where they are installed)
import importlib
from importlib.metadata import PackageNotFoundError, version

try:
    version("flow-models-course")
except PackageNotFoundError:
    %pip install -q "flow-models-course[course] @ git+{url}@{commit}"
    importlib.invalidate_caches()
    try:
        version("flow-models-course")
    except PackageNotFoundError:
        raise RuntimeError(
            "The packages of the course could not be installed: what pip says "
            "stands above. Run this cell again when it is mended."
        ) from None
"""
