"""Flow matching: path and loss, schedules, solvers, guidance, and the handoff between two experts."""

from ..config import SOLVERS
from .experts import Experts
from .loss import draw_sigmas, flow_loss, interpolate, training_timesteps, velocity_target
from .noise import draw_noise
from .schedule import FlowSchedule, shift_sigma
from .session import Expert, Model, Velocity
from .solvers import sample

__all__ = [
    "SOLVERS",
    "Expert",
    "Experts",
    "FlowSchedule",
    "Model",
    "Velocity",
    "draw_noise",
    "draw_sigmas",
    "flow_loss",
    "interpolate",
    "sample",
    "shift_sigma",
    "training_timesteps",
    "velocity_target",
]
