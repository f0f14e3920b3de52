"""Vision and audio towers and the projectors that join them to a decoder."""
