"""Clocks of benchmarks: seconds of the wall, or of all processors that work for this process, which is steadier on a busy machine."""

import time

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
