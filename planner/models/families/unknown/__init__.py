"""Model types without a family: a sister, a nested text model, or plain fields read as bounds."""
