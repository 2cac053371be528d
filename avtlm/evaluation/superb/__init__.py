"""SUPERB (Yang et al. 2021, arXiv 2105.01051): what a frozen encoder knows, by small models over a weighted sum of its layers."""
