"""One run of a configuration on this machine: model loaded, memory capped, passes timed."""
