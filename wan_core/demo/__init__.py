"""The small trained model that ships with the pack, and what the command `demo` needs besides."""
