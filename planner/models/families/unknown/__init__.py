"""Model types without a family: a similar type, a nested text model, or fields read as bounds."""
