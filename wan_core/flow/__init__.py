"""Flow matching: path and loss, schedules, solvers, guidance, and the handoff between two experts."""

from .experts import Experts
from .loss import draw_sigmas, flow_loss, interpolate, training_timesteps, velocity_target
from .noise import draw_noise
from .schedule import SOLVERS, FlowSchedule, shift_sigma
from .solvers import sample

__all__ = [
    "SOLVERS",
    "Experts",
    "FlowSchedule",
    "draw_noise",
    "draw_sigmas",
    "flow_loss",
    "interpolate",
    "sample",
    "shift_sigma",
    "training_timesteps",
    "velocity_target",
]
