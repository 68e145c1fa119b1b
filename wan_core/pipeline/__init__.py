"""From prompts and pictures to a clip: the request, the inputs, the run, the output."""

from .options import Options
from .output import WanOutput
from .pipeline import WanPipeline
from .request import Request

__all__ = ["Options", "Request", "WanOutput", "WanPipeline"]
