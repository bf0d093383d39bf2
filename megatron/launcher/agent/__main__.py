"""`python -m megatron.launcher.agent`: the agent of one machine."""

import sys

from megatron.launcher.agent.agent import main

if __name__ == "__main__":
    sys.exit(main())
