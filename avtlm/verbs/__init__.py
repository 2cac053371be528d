"""Verbs of `avtlm` by what they are around; cli.py has those of the house itself, and what all verbs have in common."""

import argparse
from collections.abc import Callable

AddVerb = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]
