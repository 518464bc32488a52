"""For nbval: bars come only when a machine is slow, and tests compare outputs."""

import os

os.environ["TQDM_DISABLE"] = "1"
