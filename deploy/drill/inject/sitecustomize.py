"""Python runs this at the start of the drill's processes, which have this folder on their path: a slow navigator.

A step of its policy then takes as long as the drill's switch says, once.
"""

import os
import sys

if sys.orig_argv[-2:] == ["deploy.processes", "navigator"] and "ROBONAV_DRILL" in os.environ:
    from deploy.drill.slow import slow_down

    slow_down(os.environ["ROBONAV_DRILL"])
