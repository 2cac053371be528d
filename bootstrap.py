"""Make .venv with everything that the tests, the quickstart and the demo need: `python3 bootstrap.py`.

Needs Python 3.10 to 3.12 (tested on 3.11) and nothing else. It does nothing if .venv is up to date with pyproject.toml and constraints.txt.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"
OLDEST, NEWEST = (3, 10), (3, 12)
CANDIDATES = ("python3.11", "python3.12", "python3.10")
SUITS = f"import sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"


def main() -> int:
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        for name in CANDIDATES:
            other = shutil.which(name)
            if other and quiet(other, "-c", SUITS):
                os.execv(other, [other, str(ROOT / "bootstrap.py")])
        print(
            f"Python {sys.version.split()[0]} cannot install the face landmark package; install Python 3.11 and run this again.",
            file=sys.stderr,
        )
        return 1
    state = fingerprint()
    if STAMP.is_file() and STAMP.read_text() == state and works("-m", "pip", "--version"):
        os.utime(STAMP)  # for make, which compares times
        return 0
    STAMP.unlink(missing_ok=True)
    if not works("-m", "pip", "--version") and not create():
        print(
            "Cannot make a virtual environment with pip: this Python has no ensurepip, and neither pip nor virtualenv is installed. "
            "On Debian and Ubuntu run: apt install python3-venv",
            file=sys.stderr,
        )
        return 1
    print("Installing the packages into .venv (about 6 GB, mostly PyTorch with CUDA; a few minutes) ...", flush=True)
    requirements = [*("-c", "constraints.txt"), *("-e", ".[all,dev,docs]")]
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *requirements]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        print("The installation failed; the lines above say why. Run the same command again to continue.", file=sys.stderr)
        return 1
    STAMP.write_text(state)
    return 0


def fingerprint() -> str:
    """Changes whenever the environment has to be refreshed."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def works(*arguments: str) -> bool:
    """Whether the Python of .venv exists and runs this."""
    return PYTHON.exists() and quiet(str(PYTHON), *arguments)


def quiet(*command: str) -> bool:
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT).returncode == 0
    except OSError:
        return False


def create() -> bool:
    """Make .venv with pip in it, by whatever way this machine offers."""
    print(f"Creating .venv with {sys.executable} {sys.version.split()[0]} ...", flush=True)
    if quiet(sys.executable, "-m", "venv", "--clear", str(VENV)) and works("-m", "pip", "--version"):
        return True
    # Debian and Ubuntu split ensurepip off into python3-venv. An environment without pip can still be made; pip then comes from elsewhere.
    bare = quiet(sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV))
    site = VENV / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    wheels = sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    ways = [[sys.executable, "-m", "pip", "install", "--target", str(site), "pip"]]
    ways += [[str(PYTHON), f"{wheel}/pip", "install", "pip"] for wheel in wheels]
    if bare and any(quiet(*way) and works("-m", "pip", "--version") for way in ways):
        return True
    if quiet(sys.executable, "-m", "virtualenv", "--clear", str(VENV)) and works("-m", "pip", "--version"):
        return True
    uv = shutil.which("uv")
    return bool(uv) and quiet(uv, "venv", "--clear", "--seed", "--python", sys.executable, str(VENV)) and works("-m", "pip", "--version")


if __name__ == "__main__":
    sys.exit(main())
