"""Predicted TTFT and TPOT: the work of each pass, and a roofline with measured efficiencies."""
