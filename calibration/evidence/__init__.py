"""Tables and checks that hold the predictions to shipped measurements, for docs and tests."""
