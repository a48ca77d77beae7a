"""What this machine has to train on. Asks the driver: torch would take seconds and a gigabyte."""

import shutil
import subprocess


def all_devices() -> list[str]:
    """CUDA devices by index, else the CPU."""
    if driver := shutil.which("nvidia-smi"):
        asked = subprocess.run([driver, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.split()
    return ["cpu"]
