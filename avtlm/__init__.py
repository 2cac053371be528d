"""avtlm: audio-visual-text models on one shared core. Import what you need from the submodules; this file stays light."""

__version__ = "0.1.0.dev0"
