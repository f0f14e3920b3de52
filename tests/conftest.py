"""What must be set before anything is imported: Triton's interpreter where there is no GPU, a home
without the calibrations of whoever runs the tests, and one thread a process: the suite runs in as
many processes as there are cores, and waiting threads of BLAS would take the cores from each other.
"""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ["KVPARETO_TRACEBACK"] = "1"  # a fault of the program is to be seen
os.environ["KVPARETO_HOME"] = tempfile.mkdtemp(prefix="kvpareto-tests-")

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
