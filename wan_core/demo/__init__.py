"""The model that ships with the pack, and what makes it."""
