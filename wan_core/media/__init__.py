"""Images and video files: what a caller passes in to tensors, and frames to mp4."""
