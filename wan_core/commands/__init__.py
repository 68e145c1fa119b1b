"""The commands of `python -m wan_core`, a file each."""
