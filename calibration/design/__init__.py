"""Which configurations a calibration measures next, and how long that will take."""
