"""TODO planner/families."""
