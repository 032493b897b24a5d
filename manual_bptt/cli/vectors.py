"""``manual-bptt vectors``: verified problems for those who write BPTT in another language."""

import argparse
from typing import Any

from manual_bptt.cells import CELLS
from manual_bptt.cli.shared import UsageError, output_folder, plain, progress, require


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    vectors = commands.add_parser("vectors", help="write verified problems with every gradient")
    vectors.add_argument("--out", metavar="DIR", required=True, help="where the files go")
    vectors.add_argument(
        "--cell", default="tanh", choices=[*CELLS], metavar="NAME",
        help=f"the network: {', '.join(CELLS)} (tanh, the lab's)",
    )  # fmt: skip
    vectors.set_defaults(run=_vectors)


def _vectors(arguments: argparse.Namespace) -> int:
    require("verify", "jax", "mpmath", "rich")
    from reference.vectors.certified import NotVerifiedError
    from reference.vectors.files import write_vectors

    folder = output_folder(arguments.out)
    try:
        paths = write_vectors(folder, progress=progress, cell=arguments.cell)
    except NotVerifiedError as error:
        print(f"nothing was written: {error}")
        return 1
    except OSError as error:
        raise UsageError(f"cannot write to the folder {folder}: {error.strerror}") from None
    print("\n".join(plain(str(path)) for path in paths))
    return 0
