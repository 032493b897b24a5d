"""``python -m manual_bptt.cli``: the same as ``manual-bptt``."""

import sys

from manual_bptt.cli import main

if __name__ == "__main__":
    sys.exit(main())
