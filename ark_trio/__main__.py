"""`python -m ark_trio` is the same as `ark-trio`."""

import sys

from ark_trio.cli import main

sys.exit(main())
