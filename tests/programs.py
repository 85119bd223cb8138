"""What parses the command line of each program."""

import beam_eval
import common.evaluate
import power_sampling
import rloo_sharpen
import rloo_task
import rloo_tilted

PARSERS = {
    "rloo_task.py": rloo_task.Args,
    "rloo_sharpen.py": rloo_sharpen.Args,
    "rloo_tilted.py": rloo_tilted.Args,
    "power_sampling.py": power_sampling.Args,
    "beam_eval.py": beam_eval.Args,
    "common.evaluate": common.evaluate.Args,
}
