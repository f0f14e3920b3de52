"""From a question to a recommendation: enumerate, evaluate, Pareto frontier, choice, reasons."""
