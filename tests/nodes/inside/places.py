"""Where everything is: the arguments of the command, before ComfyUI gets arguments of its own."""

import sys

GROUP, COMFYUI, PACK, MODELS, GOLDEN, STORED = sys.argv[1:7]
