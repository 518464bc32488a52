"""`python -m cloudlab.cli`: the same as `cloudlab`."""

import sys

from cloudlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
