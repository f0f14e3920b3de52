"""What is checked of a calibration's files before a plan uses them."""
