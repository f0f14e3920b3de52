"""Times and memory of a GPU, from whole runs of the kvpareto engine on it."""
